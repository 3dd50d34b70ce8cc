"""fio job files: the options that shape the I/O, read; the rest, noted or refused.

[global] sections apply to the job sections after them, ';' and '#' begin a comment, a key without
a value is true, ${NAME} is the environment's, 'include FILE' is replaced by what the file says.
Values stay text: sim.config understands them.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sim.errors import ConfigError, shown
from sim.formats import Given, fio_options, nearest, read_text

Job = dict[str, Given]

# Of an option the key of [workload] that it is; fio's other names are ALIASES.
HONOURED = (
    'rw bs bsrange bssplit iodepth iodepth_low iodepth_batch_submit iodepth_batch_complete_min '
    'iodepth_batch_complete_max numjobs rwmixread rwmixwrite size offset offset_increment '
    'random_distribution percentage_random norandommap randseed io_size number_ios loops runtime '
    'time_based ramp_time startdelay io_submit_mode rate rate_iops rate_process thinktime '
    'thinktime_spin thinktime_blocks thinktime_iotime fsync fdatasync end_fsync read_iolog '
    'replay_time_scale replay_no_stall replay_scale replay_align replay_skip ioengine '
    'group_reporting stonewall hipri'
).split()
ALIASES = {
    'readwrite': 'rw',
    'blocksize': 'bs',
    'blocksize_range': 'bsrange',
    'iodepth_batch': 'iodepth_batch_submit',
    'iodepth_batch_complete': 'iodepth_batch_complete_min',
    'io_limit': 'io_size',
    'wait_for_previous': 'stonewall',
}
EXCLUSIVE = {'rwmixread': 'rwmixwrite', 'rwmixwrite': 'rwmixread'}
LISTS = ('bs', 'bsrange', 'bssplit', 'rate', 'rate_iops', 'percentage_random', 'replay_skip')

REASONS = {
    'the disk is [target]': 'filename directory filename_format replay_redirect',
    'the LUN needs no preparing': 'fallocate create_on_open create_serialize create_fsync '
    'overwrite pre_read unlink unlink_each_loop allow_file_create allow_mounted_write file_append '
    'unique_filename',
    'the content of the data does not matter': 'refill_buffers scramble_buffers zero_buffers '
    'buffer_pattern buffer_compress_percentage dedupe_percentage dedupe_global',
    'there is no page cache': 'invalidate fadvise_hint',
    'a clone stays on one vCPU, its own or one that it shares': 'thread cpus_allowed '
    'cpus_allowed_policy cpumask '
    'nice prio prioclass numa_cpu_nodes numa_mem_policy',
    'randseed and run.seed decide': 'randrepeat allrandrepeat random_generator',
    'every request is recorded': 'gtod_reduce disable_lat disable_clat disable_slat '
    'disable_bw_measurement log_compression significant_figures unit_base clocksource gtod_cpu '
    'block_error_percentiles disk_util stats write_iolog log_entries log_prio log_store_compressed '
    'log_unix_epoch log_alternate_epoch log_alternate_epoch_clock_id',
    'it is only a text': 'description name',
    'each job ends by its own limits': 'exitall exit_what exitall_on_error',
    'no job is ended by an error': 'continue_on_error error_dump',
    'nothing of it concerns the I/O': 'cgroup cgroup_weight cgroup_nodelete uid gid exec_prerun '
    'exec_postrun lockmem hugepage-size',
    'no disk looks at it': 'write_hint',
    'the system calls of an engine have one price': 'fixedbufs registerfiles userspace_reap',
    'no job is ended for being slow': 'rate_min rate_iops_min rate_cycle max_latency',
    'requests are counted when they are issued': 'thinktime_blocks_type',
    'the whole trace is read first': 'read_iolog_chunked',
    'percentages are rounded up to whole requests': 'offset_align',
}
NOTED = {key: reason for reason, keys in REASONS.items() for key in keys.split()}

# Options of fio's that would change the I/O, and why they are not there. Others are refused, too.
REFUSALS = {
    'requests of other lengths or places than fio aligns to': 'bs_unaligned blocksize_unaligned '
    'blockalign ba bs_is_seq_rand rw_sequencer',
    'one file is modelled, the LUN': 'filesize nrfiles openfiles file_service_type opendir',
    'data are checked by the simulator itself, and always': 'verify do_verify verify_only',
    'a search over loads; run a sweep': 'latency_target latency_window latency_percentile '
    'latency_run',
    'a run ends by its length, not by what it measures': 'steadystate steadystate_duration '
    'steadystate_ramp_time ss ss_dur ss_ramp',
    'zones of a zoned disk are not modelled': 'zonemode zonesize zonerange zoneskip zonecapacity '
    'ignore_zone_limits max_open_zones job_max_open_zones read_beyond_wp zone_reset_frequency '
    'zone_reset_threshold',
    'its effect on the system calls is not modelled': 'sqthread_poll nonvectored mem iomem '
    'sync atomic write_barrier sync_file_range force_async',
    'sizes are read in one way': 'kb_base',
    'a LUN is never full': 'fill_device fill_fs',
    'no file is closed; write end_fsync=1': 'fsync_on_close',
    'no scheduler of the block layer is modelled': 'ioscheduler',
    'a job does I/O': 'create_only',
    'profiles are not read; write their options': 'profile',
    'a thread that depends on another is not modelled': 'flow flow_id flow_sleep wait_for '
    'serialize_overlap rate_ignore_thinktime thinkcycles',
    'there is one log, read_iolog': 'merge_blktrace_file merge_blktrace_scalars '
    'merge_blktrace_iters',
}
NOT_MODELLED = {key: reason for reason, keys in REFUSALS.items() for key in keys.split()}
FLAGS = (
    'time_based', 'group_reporting', 'stonewall', 'norandommap', 'end_fsync', 'replay_no_stall',
    'hipri',
)  # fmt: skip

INCLUDES_MAX = 16  # fio's limit
CACHED = 'I/O through the page cache is not modelled; write direct=1'
ENGINES = ('libaio', 'io_uring')
TRUE = ('', '1', 'true', 'yes', 'on')
PAGE_SIZE = '4096'  # of the guest
# fio's other reserved words, which stand for the machine that fio runs on.
UNKNOWN_WORDS = {'ncpus': 'the vCPUs of the guest', 'mb_memory': 'the memory of the guest in MB'}


def parse_job_file(path: str | Path) -> tuple[list[Job], list[str]]:
    """The workload keys of each job in the file, with file and line, and notes on what is ignored.

    Raises ConfigError, with file and line, for an option that would change the I/O and is not
    modelled, an unknown one, an undefined ${NAME}, or a file without a job.
    """
    shared: Job = {}
    jobs: list[Job] = []
    notes: list[str] = []
    current: Job | None = None
    for where, line in lines_of(Path(path)):
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


def sections_of(path: str | Path) -> list[tuple[str, fio_options.Options]]:
    """Name and options of each section, as written; of a file that parse_job_file() has read."""
    found: list[tuple[str, fio_options.Options]] = []
    for where, line in lines_of(Path(path)):
        if line.startswith('['):
            found.append((section_name(line, where), {}))
            continue
        name, equals, value = (part.strip() for part in expand(line, where).partition('='))
        found[-1][1].pop(name, None)
        found[-1][1][name] = value if equals else None
    return found


def lines_of(path: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Place and text of each line that says something, with those of files that it includes.

    A file that is included is looked for beside the one that does so, as in fio.
    """
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        where = f'{path}:{number}'
        line = re.split('[;#]', raw, maxsplit=1)[0].strip()
        words = line.split(maxsplit=1)
        if words[:1] != ['include']:
            if line:
                yield where, line
            continue
        if len(words) == 1:
            raise ConfigError(f'{where}: include needs a file; write include FILE')
        if depth == INCLUDES_MAX:
            raise ConfigError(f'{where}: more than {INCLUDES_MAX} files include each other')
        yield from lines_of(path.parent / words[1], depth + 1)


def section_name(line: str, where: str) -> str:
    """The name in '[name]'."""
    name = line[1:-1].strip()
    if not line.endswith(']') or not name:
        raise ConfigError(f'{where}: {shown(line)} is not a section; write [name]')
    return name


def expand(line: str, where: str) -> str:
    """The line with each ${NAME} replaced by the environment's value, and $pagesize by 4096."""
    for word, what in UNKNOWN_WORDS.items():
        if re.search(rf'\${word}\b', line):
            raise ConfigError(f'{where}: ${word} is not known before the guest is; write {what}')
    line = re.sub(r'\$pagesize\b', PAGE_SIZE, line)

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
    elif key in fio_options.READERS:
        try:
            fio_options.check(key, value if equals else None)
        except ConfigError as error:
            raise ConfigError(f'{where}: {written}: {error}') from None
        notes.append(f'fio: {where}: {key} shapes --fio-json and --fio-logs, nothing else')
    elif key in NOTED:
        notes.append(f'fio: {where}: {key} has no effect here: {NOTED[key]}')
    elif key.split()[0] in NOT_MODELLED:
        name = key.split()[0]
        raise ConfigError(f'{where}: {name} is not modelled: {NOT_MODELLED[name]}; take it out')
    else:
        close = nearest(key, {*HONOURED, *ALIASES, *NOTED, *fio_options.READERS, 'direct'})
        raise ConfigError(f'{where}: unknown option {shown(written)}; the nearest is {close!r}')


def check_value(key: str, written: str, value: str, where: str) -> None:
    """Refuse what fio understands and this model does not."""
    if value.startswith('('):
        raise ConfigError(
            f'{where}: {written}={value}: arithmetic is not read (nor by Debian\'s fio, which is '
            'built without it); write the number'
        )
    if ',' in value and key not in LISTS:
        raise ConfigError(
            f'{where}: {written}={value}: one value for all directions is modelled, not a list'
        )
    if key == 'read_iolog' and ':' in value:
        raise ConfigError(f'{where}: {written}={value}: one trace for all clones is modelled')
    if key == 'startdelay' and '-' in value[1:]:
        raise ConfigError(f'{where}: {written}={value}: one delay is modelled, not a range')
    if key == 'rw' and 'trim' in value:
        raise ConfigError(f'{where}: {written}={value}: trims are not modelled')
    if key == 'ioengine' and value not in ENGINES:
        raise ConfigError(
            f'{where}: ioengine={value} is not modelled; use one of {", ".join(ENGINES)}'
        )


def fio_defaults(job: Job, notes: list[str]) -> None:
    """Fill in where fio's default is not ours, and say so."""
    name, where = job['name']
    if 'rw' not in job and 'read_iolog' not in job:
        job['rw'] = Given('read', where)
        notes.append(f'fio: {where}: no rw in [{name}]: it is read, as in fio')
    if 'read_iolog' in job and 'iodepth' not in job:
        job['iodepth'] = Given(1, where)
        notes.append(f'fio: {where}: no iodepth in [{name}]: it is 1, as in fio')
    if 'ioengine' not in job:
        job['ioengine'] = Given('libaio', where)
        notes.append(f'fio: {where}: no ioengine in [{name}]: libaio is taken, fio takes psync')
