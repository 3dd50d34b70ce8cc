"""Kernel vhost-scsi, SPDK's polling reactor, QEMU's IOThread: what does each make of one disk?

Method: the same guest, the same seed - so the same requests and the same service times - and the
same disk behind the three devices, at iodepth 1 and 64: kernel vhost-scsi-pci, vhost-user-scsi-pci
with SPDK, virtio-scsi-pci with an IOThread, the last also without polling (qemu.poll_max_ns=0) and
with packed rings. Two disks: a fast one (10 us), and a null disk that shows the path alone. Each
device has its own defaults (rings of 128 or 256 entries). Two jobs, as in the published comparison
of kernel vhost-scsi and SPDK, by which SPDK is 9.8 us ahead at depth 1.

Expect: at depth 1 SPDK ahead of the kernel by about 10 us (two wakes, two hops to LIO, the kick),
the IOThread between the two as long as it polls. At depth 64 the guest's two vCPUs bound what SPDK
and the kernel worker do, and the IOThread's 4.2 us of CPU time per request bound it. A reactor
takes no kick at all, and its core is busy or polling all the time.

Two latencies: up to the completion in the guest's driver (mean_us, the stages), and up to fio's
reaping it (fio_lat_*), which is the one that grows where the guest's CPUs are the bound.

Takes: a minute on two cores, --quick under half of that, behind the compilation of the kernels.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from experiments import command

DEPTHS = (1, 64)
REQUESTS, REQUESTS_QUICK = 20_000, 3000
JOBS = 2

QEMU = {'device.driver': 'virtio-scsi-pci'}
BACKENDS = {
    'kernel vhost-scsi': {'device.driver': 'vhost-scsi-pci'},
    'SPDK reactor': {'device.driver': 'vhost-user-scsi-pci'},
    'QEMU IOThread': QEMU,
    'IOThread, no polling': QEMU | {'qemu.poll_max_ns': 0},
    'IOThread, packed ring': QEMU | {'device.packed': 'on'},
}
DISKS = {
    '10 µs': {'target.kind': 'exponential', 'target.service': '10us'},
    'null': {'target.kind': 'null'},
}

SWEPT = tuple(DISKS)

# SPDK Vhost Performance Report 24.05, Intel, 2024-07: Xeon Gold 6348, one NVMe drive shared by two
# VMs, 4 KiB random reads, one job each at depth 1: 92.00 us by kernel vhost-scsi, 82.24 by SPDK.
PUBLISHED_GAP_US = 92.00 - 82.24


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Run every backend on every disk at every depth."""
    from sim.analysis.bounds import least_us, said_by_theory

    points = [(disk, depth, backend) for disk in SWEPT for depth in DEPTHS for backend in BACKENDS]
    configs = [point(options, *each) for each in points]
    command.announce(options, configs[0])
    reports = command.reports(options, configs)
    rows = [
        row_of(*each, report) | said_by_theory(config) | least_us(config)
        for each, config, report in zip(points, configs, reports, strict=True)
    ]
    return command.Outcome(configs[0], rows, command.violations(reports))


def point(options: argparse.Namespace, disk: str, depth: int, backend: str) -> Any:
    """The config of a point."""
    over = {
        'workload.number_ios': REQUESTS_QUICK if options.quick else REQUESTS,
        'workload.numjobs': JOBS,
    }
    vary = {'workload.iodepth': depth} | DISKS[disk] | BACKENDS[backend]
    return command.config(options, over=over, vary=vary)


def mean_us(report: dict[str, Any]) -> float:
    """Mean latency."""
    return float(report['latency_ns']['mean'] / 1e3)


def headlines(options: argparse.Namespace) -> list[Any]:
    """SPDK's lead at depth 1, as published; what each backend makes of a null disk at depth 64."""
    from sim.studies.guesses import Headline

    pair = tuple(point(options, '10 µs', 1, name) for name in ('kernel vhost-scsi', 'SPDK reactor'))
    gap = Headline(
        name='kernel vhost-scsi less SPDK, iodepth 1, disk of 10 µs', unit='µs', configs=pair,
        value=lambda kernel, spdk: mean_us(kernel) - mean_us(spdk),
    )  # fmt: skip
    return [gap] + [
        Headline(
            name=f'{backend}, iodepth 64, null disk', unit='IOPS',
            configs=(point(options, 'null', 64, backend),), value=lambda report: report['iops'],
        )
        for backend in ('kernel vhost-scsi', 'SPDK reactor', 'QEMU IOThread')
    ]  # fmt: skip


def row_of(disk: str, depth: int, backend: str, report: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    count, seconds = report['requests_completed'], report['simulated_seconds']
    busy = report['busy']
    thread = report['host_thread']
    host = [name for name in busy if name.startswith((thread, 'lio_'))]
    spun = [name for name in host if name.endswith('.polling')]

    def per_request(names: list[str]) -> float:
        return sum(busy[name] for name in names) * seconds / count * 1e6

    latency, fio = report['latency_ns'], report['fio_lat_ns']
    return {
        'disk': disk,
        'backend': backend,
        'iodepth': depth,
        'iops': report['iops'],
        **command.interval(report, 'iops', 'iops'),
        'mean_us': latency['mean'] / 1e3,
        **command.interval(report, 'latency_ns.mean', 'mean_us', 1e3),
        'fio_lat_mean_us': fio['mean'] / 1e3,
        **command.interval(report, 'fio_lat_ns.mean', 'fio_lat_mean_us', 1e3),
        'fio_lat_p99_us': None if fio['p99'] is None else fio['p99'] / 1e3,
        'host_cpu_us_per_request': per_request([name for name in host if name not in spun]),
        'host_polling_us_per_request': per_request(spun),
        'guest_cpu_us_per_request': per_request([n for n in busy if n.startswith('vcpu')]),
        'kicks_per_request': report['kicks'] / count,
        'interrupts_per_request': report['interrupts'] / count,
        'thread_wakes_per_request': report['worker_wakes'] / count,
        'line_transfers_per_request': report['line_transfers_per_request'],
        'stages_us': {stage: value / 1e3 for stage, value in report['stages_ns'].items()},
        'id': report['id'],
        'digest': report['digest'],
    }


def gap_us(rows: list[dict[str, Any]]) -> float:
    """Mean latency of kernel vhost-scsi less that of SPDK, at depth 1 on the disk of 10 us."""
    found = {row['backend']: row['mean_us'] for row in rows if row['disk'] == '10 µs'
             and row['iodepth'] == 1}  # fmt: skip
    return found['kernel vhost-scsi'] - found['SPDK reactor']


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Table and figures."""
    import pandas as pd

    from sim.analysis import plot, plot_backends
    from sim.record import STAGES

    rows = outcome.rows
    table = pd.DataFrame(rows).replace({None: float('nan')})
    table.drop(columns='stages_us').to_csv(folder / 'backends.csv', index=False)
    job = outcome.config.jobs[0]
    what = f'{job.rw} {job.bs // 1024}k, {JOBS} jobs, {job.ioengine}'
    figure = plot_backends.backends(table, f'{what}: three devices behind one guest')
    plot.save(figure, folder / 'backends.png')
    shallow = [row for row in rows if row['iodepth'] == 1 and row['disk'] == '10 µs']
    stacks = pd.DataFrame(
        [
            {'label': row['backend']}
            | {stage: row['stages_us'][stage] for stage in STAGES}
            | {f'latency{end}': row[f'mean_us{end}'] for end in ('', '_low', '_high')}
            | {name: row[name] for name in ('least_us', 'least_beside_disk_us')}
            for row in shallow
        ]
    )
    title = f'{what}, depth 1, disk of 10 µs: where the time goes'
    plot.save(plot.stage_stack(stacks, title), folder / 'stages.png')


def show(outcome: command.Outcome) -> None:
    """The table for people."""
    import pandas as pd

    columns = (
        'disk backend iodepth iops mean_us fio_lat_mean_us fio_lat_p99_us host_cpu_us_per_request '
        'host_polling_us_per_request kicks_per_request interrupts_per_request'
    ).split()
    table = pd.DataFrame(outcome.rows)[columns].replace({None: float('nan')}).round(2)
    table['iops'] = table['iops'].round().astype(int)
    short = {name: name.removesuffix('_per_request') + '/req' for name in columns[7:]}
    print(table.rename(columns=short).to_string(index=False, na_rep='-'))
    print(
        f'\nkernel less SPDK at depth 1: {gap_us(outcome.rows):.1f} us simulated, '
        f'{PUBLISHED_GAP_US:.1f} us published'
    )


EXPERIMENT = command.Experiment(
    'backends', __doc__, experiment, draw, show,
    tables=('backends.csv',),
    figures={
        'backends.png': 'IOPS, latency, CPU time, kicks and interrupts by backend and depth',
        'stages.png': 'mean time in each stage at depth 1, by backend',
    },
    headlines=headlines,
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
