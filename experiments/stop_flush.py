"""Stop, flush and hand over at every moment of a run: where is a request lost, failed or stranded?

Method: state is flat arrays, so a loaded run is walked through step by step. From every boundary
between two steps a copy of it is stopped, flushed, handed over to another host and run on until
nobody has anything left to do: the vCPUs stand still at exactly this boundary (or a policy with a
lead time begins there). Dirty logging is on, as in the last round of a pre-copy. Cells are the
policies that a real or a proposed stack has, backends, host kernels, EVENT_IDX on and off, loads,
and the gap between the standstill of the vCPUs and the moment at which the queues lose their
backend. Where few requests are in flight also all orders of agents that are due at one cycle (not
with --quick). Then each mechanism of the hand-over is left out, and boundaries are tried until its
checker speaks.

    load      one     iodepth 1 on a disk of 1 ms
              three   iodepth 3 on a disk of 80 us
              eight   two jobs of iodepth 4, a queue and a vCPU for each (not with --quick)
              sparse  two jobs on one queue, each with an arrival a second on the average
              twins   two jobs of iodepth 1, each with a queue, a vCPU and a vhost worker: from the
                      first step on, when all of them do everything at once (not with --quick)

Expect: with policy drain nothing is lost, doubled or torn on 6.12 and 7.2. On 7.2 one thing
remains: a kick that the worker has not seen when the endpoint is cleared is consumed, SET_ENDPOINT
queues nothing, and with EVENT_IDX the guest does not kick again (a stranded kick; without, the next
request brings it along). On 6.1 what the worker fetches while the targets are gone already fails
with BAD_TARGET. Before 7.2 the pages of READs are in no dirty log and stay behind (stale), and so
does the reply BAD_TARGET, if its request was published before the last sync: the guest then reads
the old reply, and takes the WRITE for done (lost). Policy look, which no kernel has, strands
nothing; nor does anything go wrong with devices that poll their rings or look into them at the
start. Each removed mechanism is noticed by the checker of its requirement.

Takes: ten minutes on two cores with --jobs 2, --quick two, behind the compilation of the
kernels.

`--replay CELL:BOUNDARY` tells one boundary once more, `--timeline FILE` writes it for
ui.perfetto.dev; CELL:BOUNDARY is what the column `example` has. Every cell with a bad boundary has
its first one told in examples.txt.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import command
from sim.errors import ConfigError

if TYPE_CHECKING:
    from sim.studies.stop_search import Cell

KERNELS = ('6.1', '6.12', '7.2')
GAPS_NS = (0, 5_000, 30_000, 1_000_000)
GAPS_NS_QUICK = (0, 30_000, 1_000_000)
LEAD_NS = 100_000  # of policies that have a lead time; the boundary is then where it begins
BOUNDARIES, BOUNDARIES_QUICK = 10_000, 2_000  # of each policy
SKIP = 200  # steps before the window: caches are warm, queues are full
SKIP_OF = {'twins': 0}

# What lies between the standstill and the loss of the backend takes no time: the gap is all of it.
AT_ONCE = {
    f'control.{name}': '0'
    for name in (
        'vcpu_kick',
        'vm_state_notify',
        'qemu_step',
        'ioctl',
        'vq_access',
        'message',
        'reply',
    )
}
MACHINE: dict[str, Any] = {
    'device': {'virtqueue_size': 16, 'num_queues': 1},
    'workload': {'rw': 'randrw', 'number_ios': 60},
    'target': {'size': '2m'},
    'migration': {'ram': '1m'},
    'costs': AT_ONCE,
}
OF_KERNEL: dict[str, Any] = {
    'device': {**MACHINE['device'], 'migratable': True}, 'host': {'deep_idle': True},
}  # fmt: skip
LOADS = {
    'one': {'workload.iodepth': 1, 'target.service': '1ms'},
    'three': {'workload.iodepth': 3},
    'eight': {
        'workload.iodepth': 4, 'workload.numjobs': 2, 'device.num_queues': 2, 'guest.vcpus': 2,
    },
    'sparse': {
        'workload.iodepth': 1, 'workload.numjobs': 2, 'guest.vcpus': 2,
        'workload.rate_iops': 1, 'workload.rate_process': 'poisson',
    },
    'twins': {
        'workload.iodepth': 1, 'workload.numjobs': 2, 'device.num_queues': 2, 'guest.vcpus': 2,
    },
}  # fmt: skip
LOADS_OF_KERNEL = {'twins': {'device.worker_per_virtqueue': 'on'}}
LOADS_QUICK = ('one', 'three', 'sparse')
ORDERED = ('one', 'three', 'sparse', 'twins')  # loads at which other orders are tried

# What is left out, how, and how the sentence of its checker begins. VRING_F_LOG is not among them:
# QEMU marks the used rings when it unmaps them, so that nobody misses it in the last round.
ABLATIONS = {
    'no-flush': ({'policy': 'no-flush'}, 'requirement 3'),
    'no-detach': ({'policy': 'no-detach'}, 'requirement 2.2'),
    'no-sync': ({'policy': 'no-sync'}, 'requirement 2.1'),
    'no-region': ({'policy': 'no-region'}, 'requirement 3'),
    'no-cancel': ({'policy': 'no-cancel'}, 'requirement 3'),
    'base-before-clear': ({'policy': 'base-before-clear'}, 'requirement 2.1'),
    'log-before-flush': ({'policy': 'log-before-flush'}, 'requirement 2.3'),
    'without=state': ({'without': 'state'}, 'requirement 1'),
    'without=final_sync': ({'without': 'final_sync'}, 'stale page'),
    'without=vhost_log': ({'without': 'vhost_log'}, 'stale page'),
    'without=kvm_log': ({'without': 'kvm_log'}, 'stale page'),
    'without=log_all': ({'without': 'log_all'}, 'stale page'),
    'without=disk': ({'without': 'disk'}, 'requirement 4'),
    'without=target_state': ({'without': 'target_state'}, 'requirement 4'),
    'without=order': ({'without': 'order'}, 'QEMU exits: vhost_scsi_pre_save'),
}
ABLATION_STEPS = 400


World = tuple[str, str, bool, str, str]  # backend, kernel, event_idx, load, group of policies
OWN, COULD, REGION = 'own', 'hypothetical', 'in-flight region'
NO_KERNEL = '-'  # of backends that the host's kernel has no part in


def groups(backend: str) -> dict[str, list[str]]:
    """The policies that a backend has or could have, in groups that share a window."""
    from sim.control import halves
    from sim.control.stop_policy import POLICIES

    found: dict[str, list[str]] = {}
    for name, policy in POLICIES.items():
        if policy.breaks or backend in policy.never:
            continue
        own = OWN if backend in policy.of else COULD
        found.setdefault(REGION if name in halves.REGION else own, []).append(name)
    return found


def worlds(quick: bool) -> Iterator[World]:
    """What decides which boundaries there are."""
    from sim.control.stop_policy import EVERYBODY, KERNEL

    for backend in EVERYBODY:
        for kernel in KERNELS if backend == KERNEL else (NO_KERNEL,):
            for event_idx in (True, False):
                for load in LOADS_QUICK if quick else LOADS:
                    for group in groups(backend):
                        yield backend, kernel, event_idx, load, group


def cells_of(world: World, quick: bool) -> list['Cell']:
    """What is searched in a world."""
    from sim.studies.stop_search import Cell

    backend, kernel, event_idx, load, group = world
    return [
        Cell(policy, backend, kernel, event_idx, gap, load)
        for policy in groups(backend)[group]
        for gap in (GAPS_NS_QUICK if quick else GAPS_NS)
    ]


def how(cell: 'Cell') -> Any:
    """How a cell hands over."""
    from sim.control.stop_policy import POLICIES
    from sim.studies.boundaries import How

    lead = LEAD_NS if POLICIES[cell.policy].lead else 0
    return How(policy=cell.policy, gap=cell.gap_ns, lead=lead)


def world_config(options: argparse.Namespace, world: World) -> Any:
    """The config of a world."""
    from sim.control.stop_policy import KERNEL

    backend, kernel, event_idx, load, group = world
    under = MACHINE | (OF_KERNEL if backend == KERNEL else {})
    vary = {
        'device.driver': f'{backend}-pci', 'device.event_idx': 'on' if event_idx else 'off',
        'run.hypothetical': 'off' if group == OWN else 'on', **LOADS[load],
    }  # fmt: skip
    if backend == KERNEL:
        vary |= LOADS_OF_KERNEL.get(load, {}) | {'host.kernel': kernel}
    return command.config(options, under=under, vary=vary)


def experiment(options: argparse.Namespace) -> command.Outcome:
    """Search every world, then leave out each mechanism."""
    from sim.studies import stop_search

    quick, of_world = options.quick, {w: cells_of(w, options.quick) for w in worlds(options.quick)}
    first = world_config(options, next(iter(of_world)))
    command.announce(options, first)
    counts = Counter(cell.policy for cells in of_world.values() for cell in cells)
    wanted = BOUNDARIES_QUICK if quick else BOUNDARIES
    calls = {}
    for world, cells in of_world.items():
        steps = [math.ceil(wanted / counts[cell.policy]) for cell in cells]
        config = world_config(options, world).effective()
        orders = not quick and world[3] in ORDERED
        hows, skip = [how(cell) for cell in cells], SKIP_OF.get(world[3], SKIP)
        calls[label_of(world)] = config, cells, hows, steps, skip, orders
    rows = [row for found in command.each(options, stop_search.search, calls) for row in found]
    violations = [text for row in rows for text in row.pop('violations')]
    ablations = removed(options)
    violations += [
        f'{each["removed"]}: left out, and no checker noticed in {each["tried"]} boundaries'
        for each in ablations
        if each['caught_by'] is None
    ]
    more = {name: [row.pop(name) for row in rows] for name in ('stages', 'told')}
    return command.Outcome(first, rows, violations, more, {'ablations': ablations})


def label_of(world: World) -> str:
    """For the progress."""
    backend, kernel, event_idx, load, group = world
    return f'{backend} {kernel} {"event_idx" if event_idx else "flags"} {load}, {group} policies'


def removed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each mechanism that is left out."""
    from sim.control import halves
    from sim.studies import stop_search
    from sim.studies.boundaries import How

    vary = LOADS['three'] | {'host.kernel': '7.2', 'device.event_idx': 'on'}
    invented = vary | {'run.hypothetical': 'on'}
    under = MACHINE | OF_KERNEL | {
        'target': MACHINE['target'] | {'luns': 2},
        'hotplug': [{'at': '0ns', 'action': 'remove', 'lun': 1}],  # that LIO has some state to move
    }  # fmt: skip
    real, not_real = (
        command.config(options, under=under, vary=keys).effective() for keys in (vary, invented)
    )
    calls = {}
    for name, (keys, wanted) in ABLATIONS.items():
        config = not_real if name in halves.REGION else real
        calls[name] = config, How(**keys), wanted, SKIP, ABLATION_STEPS
    found = command.each(options, stop_search.ablate, calls)
    return [{'removed': name, **row} for name, row in zip(ABLATIONS, found, strict=True)]


# ------------------------------------------------------------------------------- one boundary ----


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this experiment alone."""
    parser.add_argument(
        '--replay', metavar='CELL:BOUNDARY', help='tell one boundary, as the column example has it'
    )
    parser.add_argument(
        '--timeline', metavar='FILE',
        help='of that boundary: .pftrace (Perfetto) or .json (Chrome)',
    )  # fmt: skip


def parsed(text: str) -> tuple['Cell', str]:
    """A cell and the name of a moment. Errors: ConfigError."""
    from sim.studies.stop_search import Cell

    cell, colon, moment = text.partition(':')
    parts = cell.split('/')
    if len(parts) != 6 or not colon or parts[3] not in ('event_idx', 'flags'):
        raise ConfigError(
            f'--replay {text}: is not CELL:BOUNDARY, as in '
            'drain/vhost-scsi/7.2/event_idx/0/three:17'
        )
    policy, backend, kernel, ring, gap, load = parts
    if load not in LOADS or not gap.isdigit() or group_of(backend, policy) is None:
        raise ConfigError(f'--replay {text}: there is no such policy, backend, gap or load')
    return Cell(policy, backend, kernel, ring == 'event_idx', int(gap), load), moment


def group_of(backend: str, policy: str) -> str | None:
    """The group of a policy on a backend."""
    from sim.control.stop_policy import EVERYBODY

    found = groups(backend) if backend in EVERYBODY else {}
    return next((group for group, names in found.items() if policy in names), None)


def instead(options: argparse.Namespace) -> int | None:
    """--replay: tell of one boundary; the exit code."""
    if options.replay is None:
        if options.timeline is not None:
            raise ConfigError('--timeline: is of one boundary; name it with --replay')
        return None
    from sim.studies import stop_search

    cell, name = parsed(options.replay)
    group = str(group_of(cell.backend, cell.policy))
    config = world_config(options, (cell.backend, cell.kernel, cell.event_idx, cell.load, group))
    try:
        skip = SKIP_OF.get(cell.load, SKIP)
        moment, made = stop_search.replay(config.effective(), how(cell), skip, 1 << 20, name)
    except KeyError:
        raise ConfigError(f'--replay {options.replay}: the window has no boundary {name}') from None
    print(stop_search.tell(cell, moment, made))
    if options.timeline is not None:
        write_timeline(made, config, options.timeline)
    return 0


def write_timeline(made: Any, config: Any, path: str) -> None:
    """The whole run of a boundary as a file for ui.perfetto.dev."""
    from sim.analysis import frame, timeline_files
    from sim.analysis.timeline import timeline
    from sim.exports.timeline import ioctls_of, of_migration

    timeline_files.check(path)
    requests = frame.request_frame(made.machine, config)
    hz = config.host.cpu_hz
    actions = of_migration(made.move) if made.move else ioctls_of(made.source, hz)
    timeline_files.write(timeline(config, requests, actions, config.id), path)
    print(f'timeline {path}')


# --------------------------------------------------------------------------- what came of it ----


def draw(outcome: command.Outcome, folder: Path) -> None:
    """Tables and the phase diagram."""
    import pandas as pd

    from sim.analysis import plot, plot_fates

    table = pd.DataFrame(outcome.rows)
    flat = table.drop(columns='examples').assign(hazards=table['hazards'].map('; '.join))
    flat.to_csv(folder / 'stop_flush.csv', index=False)
    pd.DataFrame(outcome.beside['ablations']).to_csv(folder / 'ablations.csv', index=False)
    told = [text for text in outcome.more['told'] if text is not None]
    (folder / 'examples.txt').write_text('\n\n'.join(told) + '\n', encoding='utf-8')
    plot.save(plot_fates.diagram(outcome.rows, outcome.more['stages']), folder / 'stop_flush.png')


def show(outcome: command.Outcome) -> None:
    """The tables for people."""
    import pandas as pd

    from sim.migrate.fate import CLEAN, FATES

    table = pd.DataFrame(outcome.rows)
    keys = ['policy', 'backend', 'kernel', 'event_idx']
    counts = table.groupby(keys, sort=False)[['boundaries', CLEAN, *FATES, 'orders']].sum()
    print(counts.to_string())
    print('\nknown hazards met:')
    for name, rows in table.explode('hazards').dropna(subset='hazards').groupby('hazards'):
        print(f'  {name}: {rows["example"].iloc[0]}')
    ablations = pd.DataFrame(outcome.beside['ablations'])
    print('\n' + ablations[['removed', 'caught_by', 'moment', 'tried']].to_string(index=False))
    print('\nreplay one: python -m experiments.stop_flush --replay EXAMPLE')


EXPERIMENT = command.Experiment(
    'stop_flush', __doc__, experiment, draw, show,
    tables=('stop_flush.csv', 'ablations.csv', 'examples.txt'),
    figures={'stop_flush.png': 'fate of a hand-over by how far the requests were, policy, kernel'},
    points=False,
    add=add,
    instead=instead,
    headlines='it says what can happen at all, at any moment; costs decide how often, not whether',
)  # fmt: skip

if __name__ == '__main__':
    sys.exit(EXPERIMENT.main())
