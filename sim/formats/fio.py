"""fio job files: the options that shape the I/O, read; the rest, noted or refused.

[global] sections apply to the job sections after them, ';' and '#' begin a comment, a key without
a value is true, ${NAME} is the environment's. Values stay text: sim.config understands them.
"""

import os
import re
from pathlib import Path

from sim.errors import ConfigError, shown
from sim.formats import Given, nearest, read_text

Job = dict[str, Given]

HONOURED = (
    'rw bs iodepth iodepth_batch_submit iodepth_batch_complete_min iodepth_batch_complete_max '
    'numjobs rwmixread rwmixwrite size runtime number_ios ramp_time rate_iops rate_process '
    'thinktime randseed ioengine time_based group_reporting stonewall norandommap'
).split()
ALIASES = {
    'readwrite': 'rw',
    'blocksize': 'bs',
    'iodepth_batch': 'iodepth_batch_submit',
    'iodepth_batch_complete': 'iodepth_batch_complete_min',
    'wait_for_previous': 'stonewall',
}
EXCLUSIVE = {'rwmixread': 'rwmixwrite', 'rwmixwrite': 'rwmixread'}

REASONS = {
    'the disk is [target]': 'filename directory filename_format',
    'the LUN needs no preparing': 'fallocate create_on_open create_serialize create_fsync '
    'overwrite pre_read unlink',
    'the content of the data does not matter': 'refill_buffers scramble_buffers zero_buffers '
    'buffer_pattern buffer_compress_percentage dedupe_percentage',
    'there is no page cache': 'invalidate',
    'each clone of a job has a vCPU of its own': 'thread cpus_allowed cpus_allowed_policy cpumask '
    'nice prio prioclass numa_cpu_nodes numa_mem_policy',
    'randseed and run.seed decide': 'randrepeat allrandrepeat random_generator',
    'every request is recorded': 'gtod_reduce disable_lat disable_clat disable_slat '
    'disable_bw_measurement lat_percentiles clat_percentiles slat_percentiles percentile_list '
    'write_lat_log write_bw_log write_iops_log write_hist_log log_avg_msec log_hist_msec '
    'log_offset log_max_value log_compression bwavgtime iopsavgtime per_job_logs '
    'unified_rw_reporting new_group significant_figures unit_base clocksource gtod_cpu',
    'it is only a text': 'description name',
    'each job ends by its own limits': 'exitall exit_what',
    'the system calls of an engine have one price': 'fixedbufs registerfiles userspace_reap',
}
NOTED = {key: reason for reason, keys in REASONS.items() for key in keys.split()}

# Options of fio's that would change the I/O. Those that are not listed are refused as well.
NOT_MODELLED = (
    'include bsrange bssplit bs_unaligned blockalign ba offset offset_increment io_size filesize '
    'loops startdelay iodepth_low random_distribution percentage_random rate rate_min '
    'rate_iops_min io_submit_mode fsync fdatasync sync verify do_verify thinktime_blocks '
    'thinktime_spin latency_target latency_window latency_percentile max_latency steadystate '
    'ss_dur ss_ramp read_iolog zonemode zonesize nrfiles openfiles mem iomem hipri sqthread_poll '
    'kb_base flow serialize_overlap'
).split()
FLAGS = ('time_based', 'group_reporting', 'stonewall', 'norandommap')

CACHED = 'I/O through the page cache is not modelled; write direct=1'
ENGINES = ('libaio', 'io_uring')
TRUE = ('', '1', 'true', 'yes', 'on')


def parse_job_file(path: str | Path) -> tuple[list[Job], list[str]]:
    """The workload keys of each job in the file, with file and line, and notes on what is ignored.

    Raises ConfigError, with file and line, for an option that would change the I/O and is not
    modelled, an unknown one, an undefined ${NAME}, or a file without a job.
    """
    shared: Job = {}
    jobs: list[Job] = []
    notes: list[str] = []
    current: Job | None = None
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        where = f'{path}:{number}'
        line = re.split('[;#]', raw, maxsplit=1)[0].strip()
        if not line:
            continue
        if line.startswith('['):
            name = section_name(line, where)
            if name == 'global':
                current = shared
            else:
                current = {**shared, 'name': Given(name, where)}
                jobs.append(current)
        elif current is None:
            raise ConfigError(f'{where}: {shown(line)} before the first [section]')
        else:
            read_option(current, expand(line, where), where, notes)
    if not jobs:
        raise ConfigError(f'{path}: no job in the file; add a section such as [randread-4k]')
    for job in jobs:
        fio_defaults(job, notes)
    return jobs, notes


def section_name(line: str, where: str) -> str:
    """The name in '[name]'."""
    name = line[1:-1].strip()
    if not line.endswith(']') or not name:
        raise ConfigError(f'{where}: {shown(line)} is not a section; write [name]')
    return name


def expand(line: str, where: str) -> str:
    """The line with each ${NAME} replaced by the environment's value."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigError(f'{where}: ${{{match[1]}}} is not set in the environment')
        return os.environ[match[1]]

    return re.sub(r'\$\{([^}]*)\}', value, line)


def read_option(job: Job, line: str, where: str, notes: list[str]) -> None:
    """Put one option into `job`, add a note, or refuse it."""
    written, equals, value = (part.strip() for part in line.partition('='))
    key = ALIASES.get(written, written)
    if key in HONOURED:
        if not equals and key not in FLAGS:
            raise ConfigError(f'{where}: {written} needs a value; write {written}=...')
        check_value(key, written, value, where)
        job.pop(EXCLUSIVE.get(key, ''), None)  # the last one counts
        job[key] = Given(value if equals else 'on', where)
    elif key in ('direct', 'buffered'):
        if (value.lower() in TRUE) != (key == 'direct'):
            raise ConfigError(f'{where}: {line}: {CACHED}')
        notes.append(f'fio: {where}: {key} has no effect here: all I/O is direct')
    elif key in NOTED:
        notes.append(f'fio: {where}: {key} has no effect here: {NOTED[key]}')
    elif key.split()[0] in NOT_MODELLED:
        raise ConfigError(f'{where}: {key.split()[0]} is not modelled; take it out')
    else:
        close = nearest(key, {*HONOURED, *ALIASES, *NOTED, 'direct'})
        raise ConfigError(f'{where}: unknown option {shown(written)}; the nearest is {close!r}')


def check_value(key: str, written: str, value: str, where: str) -> None:
    """Refuse what fio understands and this model does not."""
    if ',' in value:
        raise ConfigError(
            f'{where}: {written}={value}: one value for all directions is modelled, not a list'
        )
    if key == 'bs' and ('-' in value[1:] or ':' in value):
        raise ConfigError(f'{where}: {written}={value}: ranges of block sizes are not modelled')
    if key == 'rw' and 'trim' in value:
        raise ConfigError(f'{where}: {written}={value}: trims are not modelled')
    if key == 'ioengine' and value not in ENGINES:
        raise ConfigError(
            f'{where}: ioengine={value} is not modelled; use one of {", ".join(ENGINES)}'
        )


def fio_defaults(job: Job, notes: list[str]) -> None:
    """Fill in where fio's default is not ours, and say so."""
    name, where = job['name']
    if 'rw' not in job:
        job['rw'] = Given('read', where)
        notes.append(f'fio: {where}: no rw in [{name}]: it is read, as in fio')
    if 'ioengine' not in job:
        job['ioengine'] = Given('libaio', where)
        notes.append(f'fio: {where}: no ioengine in [{name}]: libaio is taken, fio takes psync')
