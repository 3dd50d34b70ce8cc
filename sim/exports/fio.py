"""--fio-json and --fio-logs of sim run: what fio would have written of the same job."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from sim.analysis import fio_json, fio_logs, fio_times
from sim.config import Config
from sim.errors import ConfigError
from sim.folders import check_file, check_folder
from sim.formats import fio_options
from sim.formats.fio import sections_of
from sim.run import Result

ALIASES_OF = {'rw': 'readwrite', 'bs': 'blocksize'}
NOT_OPTIONS = ('name', 'lun', 'target', 'read_iolog_sha256')  # of a job's keys, for fio


def check(config: Config, options: argparse.Namespace) -> None:
    """Refuse what cannot be written before the run is made; ConfigError."""
    wanted = [f'--{n}' for n in ('fio-json', 'fio-logs') if getattr(options, n.replace('-', '_'))]
    if not wanted:
        if options.fio_format is not None:
            raise ConfigError('--fio-format: has no meaning without --fio-json FILE')
        return
    if config.run.record != 'full':
        raise ConfigError(
            f'{wanted[0]}: needs every request; take out run.record={config.run.record}'
        )
    if config.run.replications > 1 or config.run.precision is not None:
        raise ConfigError(f'{wanted[0]}: is of one run; take out the replications')
    if options.fio_json:
        check_file('--fio-json', options.fio_json)
    if options.fio_logs:
        check_folder('--fio-logs', options.fio_logs)


def write(result: Result, options: argparse.Namespace) -> list[str]:
    """Write what the options ask for; the names of what was written."""
    if not options.fio_json and not options.fio_logs:
        return []
    config = result.config
    _, written = options_of(config, options.fio, options.sets)
    places = []
    if options.fio_json:
        bins = options.fio_format == 'json+'
        write_json(result, options.fio_json, bins=bins, fio=options.fio, sets=options.sets)
        places.append(str(options.fio_json))
    if options.fio_logs:
        place = fio_options.folder(options.fio_logs)
        clones = fio_times.clones_of(config, result.requests)
        for name, lines in fio_logs.logs(config, written, clones).items():
            _write(place / name, ''.join(lines))
        places.append(str(place))
    return places


def write_json(
    result: Result,
    path: str | Path,
    *,
    bins: bool = False,
    fio: str | None = None,
    sets: Sequence[str] = (),
) -> None:
    """Write fio's JSON of a run with every request; `bins` as json+ has them.

    `fio` and `sets`: the job file and the settings whose options it is to repeat. ConfigError where
    it cannot be written.
    """  # fmt: skip
    config = result.config
    shared, written = options_of(config, fio, sets)
    clones = fio_times.clones_of(config, result.requests)
    found = fio_json.document(
        config,
        fio_json.entries_of(config, written, clones),
        shared=shared,
        busy=result.report['busy'],
        about={
            'id': config.id,
            'digest': result.report['digest'],
            'hypothetical': result.report['hypothetical'],
        },
        bins=bins,
        now_ms=time.time_ns() // 1_000_000,
    )
    _write(Path(path), json.dumps(found, indent=2) + '\n')


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror or error})') from error


def options_of(
    config: Config, fio: str | None, sets: Sequence[str]
) -> tuple[dict[str, str], list[fio_options.Written]]:
    """The global options and each job's: as the job file has them, else from the config.

    What --set says of jobs outranks the file here, too.
    """
    pairs = (text.partition('=')[::2] for text in sets)
    over = {
        name.strip().removeprefix('workload.').replace('-', '_'): value.strip()
        for name, value in pairs
        if name.strip().startswith('workload.')
    }
    if fio is not None:
        shared, jobs = fio_options.written(sections_of(fio), over)
        for job, written in zip(config.jobs, jobs, strict=True):
            # fio repeats what was written; readers look for these whether or not it was.
            for name, value in (
                ('rw', job.rw), ('bs', job.bs), ('iodepth', job.iodepth), ('numjobs', job.numjobs)
            ):  # fmt: skip
                if not {name, ALIASES_OF.get(name)} & {*shared, *written.options}:
                    written.options[name] = str(value)
        return shared, jobs
    jobs = []
    for job in config.effective()['job']:
        kept = {k: v for k, v in job.items() if k not in NOT_OPTIONS and v not in (None, False)}
        texts = {name: '1' if value is True else str(value) for name, value in kept.items()}
        jobs.append(fio_options.Written(options=texts))
    return {}, jobs
