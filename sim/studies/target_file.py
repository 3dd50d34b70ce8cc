"""Target files: measured points, and how they are to be simulated, as a person writes them.

A target file (validation/*.toml; docs/howto/validate.md tells how to write one) has a table of
measured points, the keys of our config that its columns stand for, which numbers of a report its
other columns are to be held against, and which points may be used to fit which parameters. Here it
is read and checked; sim.studies.validate simulates it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sim.control.costs import CONTROL_PARAMETERS
from sim.errors import ConfigError, shown
from sim.formats.keys import SECTIONS, fields_of
from sim.studies.target_checks import with_checks
from sim.studies.target_data import (
    AHEAD,
    BEFORE,
    BEFORE_KINDS,
    KINDS,
    OWN,
    PARAMETERS_MOST,
    TIMES,
    Cells,
    Metric,
    Parameter,
    Target,
    Unrecorded,
    is_time,
    key_problem,
)
from sim.studies.target_reader import (
    Reader,
    account_for,
    as_text,
    cells_of,
    check_numbers,
    rows_of,
    text_list,
)
from sim.units import format_time, parse_time_ns

TOP = (
    'name', 'title', 'source', 'setup', 'verdict', 'kind', 'data', 'points', 'config', 'columns',
    'unused', 'group', 'metrics', 'calibrate', 'order', 'sign', 'bound', 'unrecorded',
)  # fmt: skip
METRIC = (
    'report', 'scale', 'excellent', 'acceptable', 'weight', 'relative_to', 'reference', 'exact',
)  # fmt: skip
CALIBRATE = ('points', 'parameters')
PARAMETER = ('low', 'high', 'choices', 'scale')
UNRECORDED = ('key', 'low', 'high', 'count')


def targets_in(places: Sequence[str]) -> Iterator[Path]:
    """Target files by their paths and those in folders; ConfigError where there is none."""
    for text in places:
        place = Path(text)
        if not place.is_dir():
            yield place
            continue
        found = sorted(place.glob('*.toml'))
        if not found:
            raise ConfigError(f'{place}: no target file (*.toml) lies in this folder')
        yield from found


def shipped_folder() -> Path:
    """Where the shipped targets lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / 'validation'
    return inside if inside.is_dir() else package.parent / 'validation'


def load_target(path: Path) -> Target:
    """Read and check a target file. Errors: ConfigError, one line, for whatever makes no sense."""
    read = Reader(path)
    read.known(read.tree, TOP, '')
    name = read.text('name') or path.stem
    kind = read.tree.get('kind', 'run')
    if kind not in KINDS:
        raise read.wrong('kind', f'{shown(kind)} is none of {", ".join(KINDS)}')
    for needed in ('source', 'columns', 'metrics'):
        if not read.tree.get(needed):
            raise read.wrong(needed, 'is missing; a target says where its figures come from')
    header, rows = rows_of(read)
    columns = _columns(read, header, kind)
    metrics = _metrics(read, header)
    unused = text_list(read, read.tree.get('unused', []), 'unused')
    account_for(read, header, {*columns, *(m.name for m in metrics), *unused})
    check_numbers(read, rows, metrics)
    group = read.text('group')
    if group and group not in columns:
        raise read.wrong('group', f'{group!r} is none of {", ".join(columns)}')
    config, own, before = _config(read, kind)
    calibrates, parameters = _calibration(read, header, rows, kind)
    target = Target(
        path=path, name=name, title=read.text('title') or name, source=read.text('source'),
        setup=read.text('setup'), verdict=read.text('verdict'), kind=kind, config=config, own=own,
        before=before, columns=columns, unused=unused, group=group, metrics=metrics, rows=rows,
        calibrates=calibrates, parameters=parameters, orders=(), signs=(), bounds=(),
        unrecorded=_unrecorded(read, kind, metrics),
    )  # fmt: skip
    return with_checks(read, target, header)


def _columns(read: Reader, header: Sequence[str], kind: str) -> dict[str, Any]:
    """What each column sets: a key, several, a key with a unit, or for each word its sets."""
    columns = read.tree['columns']
    if not isinstance(columns, dict):
        raise read.wrong('columns', 'is a table; write [columns]')
    for column, meaning in columns.items():
        place = f'columns.{column}'
        if isinstance(meaning, dict) and 'key' in meaning:
            read.known(meaning, ('key', 'unit'), place)
            keys = meaning['key']
        elif not isinstance(meaning, str | list | dict):
            raise read.wrong(place, f'{shown(meaning)} is no key; write "section.key"')
        elif isinstance(meaning, dict):
            for word, sets in meaning.items():
                if not (isinstance(sets, list) and all(isinstance(s, str) for s in sets)):
                    raise read.wrong(f'{place}.{word}', 'write a list of "section.key=value"')
            keys = [s.partition('=')[0] for sets in meaning.values() for s in sets]
        else:
            keys = meaning
        for key in [keys] if isinstance(keys, str) else keys:
            problem = key_problem(str(key), kind)
            if problem:
                raise read.wrong(place, problem)
    return columns


def _metrics(read: Reader, header: Sequence[str]) -> tuple[Metric, ...]:
    """The measured columns that are held against a report; the first is the headline."""
    metrics: list[Metric] = []
    if not isinstance(read.tree['metrics'], dict):
        raise read.wrong('metrics', 'is a table of tables; write [metrics.NAME]')
    for name in read.tree['metrics']:
        place = f'metrics.{name}'
        table = read.table(read.tree['metrics'], name, METRIC, place)
        excellent = read.number(table, 'excellent', 0.05, place)
        acceptable = read.number(table, 'acceptable', 2 * excellent, place)
        if not 0 < excellent <= acceptable:
            raise read.wrong(place, 'wants 0 < excellent <= acceptable')
        metrics.append(
            Metric(
                name=name,
                report=str(table.get('report', name)),
                scale=read.number(table, 'scale', 1.0, place),
                excellent=excellent,
                acceptable=acceptable,
                weight=read.number(table, 'weight', 1.0, place),
                relative_to=text_list(read, table.get('relative_to', []), f'{place}.relative_to'),
                reference=str(table.get('reference', '')),
                exact=table.get('exact', False) is True,
            )
        )
    return tuple(metrics)


def _config(read: Reader, kind: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The sections that all points share, what is no key of a config, and the job before."""
    config = read.tree.get('config', {})
    if not isinstance(config, dict):
        raise read.wrong('config', 'is a table of sections; write [config.workload]')
    sections = dict(config)
    own = sections.pop(kind, {}) if OWN[kind] else {}
    read.known(own, OWN[kind], f'config.{kind}')
    before = sections.pop(BEFORE, {}) if kind in BEFORE_KINDS else {}
    read.known(before, (AHEAD, *fields_of('workload')), f'config.{BEFORE}')
    for section, table in sections.items():
        if section in SECTIONS and isinstance(table, dict):
            for key in table:
                problem = key_problem(f'{section}.{key}', kind)
                if problem:
                    raise read.wrong(f'config.{section}.{key}', problem)
    return sections, own, before


def _unrecorded(read: Reader, kind: str, metrics: Sequence[Metric]) -> Unrecorded | None:
    """[unrecorded]: the key, and its values: the middles of `count` equal parts of its range."""
    table = read.table(read.tree, 'unrecorded', UNRECORDED, 'unrecorded')
    if not table:
        return None
    key, count = str(table.get('key', '')), read.number(table, 'count', 24, 'unrecorded')
    problem = key_problem(key, kind)
    if problem:
        raise read.wrong('unrecorded.key', problem)
    if not 2 <= count <= 1000 or count != int(count):
        raise read.wrong('unrecorded.count', 'is the number of values, 2 to 1000')
    if any(metric.exact or metric.relative_to for metric in metrics):
        raise read.wrong('unrecorded', 'goes with numbers, no texts and no ratios (relative_to)')
    low, high = (_end(read, table.get(e), 'unrecorded', time=is_time(key)) for e in ('low', 'high'))
    if not 0 <= low < high:
        raise read.wrong('unrecorded', f'wants 0 <= low < high, not {low:g} and {high:g}')
    points = [round(low + (high - low) * (n + 0.5) / count) for n in range(int(count))]
    values = tuple(format_time(point) if is_time(key) else str(point) for point in points)
    return Unrecorded(key=key, values=values)


def _calibration(
    read: Reader, header: Sequence[str], rows: Sequence[Cells], kind: str
) -> tuple[tuple[bool, ...], tuple[Parameter, ...]]:
    """Which points fit, and what they may move."""
    table = read.table(read.tree, 'calibrate', CALIBRATE, 'calibrate')
    wheres = table.get('points', [])
    if not isinstance(wheres, list):
        raise read.wrong('calibrate.points', 'is a list; write [{ column = value }]')
    chosen = [False] * len(rows)
    for where in wheres:
        cells = cells_of(read, header, where, 'calibrate.points')
        found = [n for n, row in enumerate(rows) if all(row[c] == v for c, v in cells.items())]
        if not found:
            raise read.wrong('calibrate.points', f'no point has {as_text(cells)}')
        for n in found:
            chosen[n] = True
    written = table.get('parameters', {})
    if not isinstance(written, dict):
        raise read.wrong('calibrate.parameters', 'is a table; write [calibrate.parameters]')
    parameters = tuple(_parameter(read, name, said, kind) for name, said in written.items())
    if len(parameters) > PARAMETERS_MOST:
        raise read.wrong('calibrate.parameters', f'at most {PARAMETERS_MOST} may be fitted')
    if parameters and not any(chosen):
        raise read.wrong('calibrate.points', 'parameters are to be fitted, and to no point')
    return tuple(chosen), parameters


def _parameter(read: Reader, name: str, said: Any, kind: str) -> Parameter:
    """One parameter: [low, high] of a key, {choices}, or {scale = [keys], low, high}."""
    dotted = f'calibrate.parameters.{name}'
    table = {'low': said[0], 'high': said[1]} if isinstance(said, list) and len(said) == 2 else said
    if not isinstance(table, dict):
        raise read.wrong(dotted, 'write [low, high], or a table with choices or scale')
    read.known(table, PARAMETER, dotted)
    scaled = table.get('scale')
    paths = [str(p) for p in ([scaled] if isinstance(scaled, str) else scaled or [name])]
    for word, names in (('costs', TIMES), ('control', CONTROL_PARAMETERS)):
        if scaled is not None and word in paths:
            found = [f'costs.{c}' for c in sorted(names) if not c.startswith('control.vfio')]
            paths = [p for p in paths if p != word] + found
    for path in paths:
        problem = key_problem(path, kind)
        if problem:
            raise read.wrong(dotted, problem)
    if 'choices' in table:
        choices = table['choices']
        if not isinstance(choices, list) or not choices:
            raise read.wrong(dotted, 'choices is a list of values')
        return Parameter(name=name, paths=tuple(paths), form='choice', choices=tuple(choices))
    form = 'value' if scaled is None else 'scale'
    low, high = (
        _end(read, table.get(end), dotted, time=form == 'value' and is_time(paths[0]))
        for end in ('low', 'high')
    )
    if not 0 < low < high:
        raise read.wrong(dotted, f'wants 0 < low < high, not {low:g} and {high:g}')
    return Parameter(name=name, paths=tuple(paths), form=form, low=low, high=high)


def _end(read: Reader, value: Any, dotted: str, *, time: bool) -> float:
    try:
        if time and isinstance(value, str):
            return float(parse_time_ns(value))
        return float(value)
    except (TypeError, ValueError):
        raise read.wrong(dotted, f'{shown(value)} is no end of a range') from None
