"""What must hold of [target], and the disk presets that it may name.

A preset (presets/disks/*.toml) is a [target] table with where it comes from and how well it fits.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, shown
from sim.formats import Given, read_text, refuse
from sim.formats.disk_keys import GROUPS, TARGET_KEYS, WBT, kind_keys
from sim.formats.layer import Table, read_table
from sim.formats.toml import read_toml
from sim.units import format_size

SECTOR = 512
TRACKS_MAX = 1 << 20  # the table of seek times has an entry for each distance
THROTTLED = ('6.1',)  # kernels that throttle LIO's writes (before 6.6)
WBT_LAT_NS = {'hdd': 75_000_000}  # block/blk-wbt.c wbt_default_latency_nsec(): 75 ms rotational
WBT_LAT_NS_ELSE = 2_000_000


class PresetValue(Given):
    """A value that a preset gives: where other keys take its meaning from it, nobody minds."""

    __slots__ = ()


def preset_folder() -> Path:
    """Where the presets lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    inside = package / 'presets'
    return inside if inside.is_dir() else package.parent / 'presets'


def disk_presets() -> list[str]:
    """The names of the disk presets that are shipped."""
    return sorted(path.stem for path in (preset_folder() / 'disks').glob('*.toml'))


def preset_path(name: str, where: str = 'disk preset') -> Path:
    """The file of a preset, by its name or by its path; ConfigError if there is none."""
    path = Path(name) if name.endswith('.toml') else preset_folder() / 'disks' / f'{name}.toml'
    if not path.is_file():
        known = ', '.join(disk_presets())
        raise ConfigError(
            f'{where}: there is no {shown(name)}; known: {known}, or the path of a TOML file'
        )
    return path


def load_disk(name: str) -> dict[str, Any]:
    """A preset as it stands in its file; ConfigError if it is none."""
    path = preset_path(name)
    try:
        return tomllib.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(f'{path}: not valid TOML: {error}') from None


def lay_preset(given: Table) -> Table:
    """The keys of the preset that `disk` names, below those that are given."""
    if 'disk' not in given:
        return given
    name, place = given['disk']
    path = preset_path(str(name), f'{place}: target.disk')
    tree, where = read_toml(path)
    content = tree.get('target')
    if not isinstance(content, Mapping) or 'kind' not in content:
        raise ConfigError(f'{path}: is no disk preset; it has no [target] with a kind')
    table = read_table('target', 'target', content, where)
    preset = {key: PresetValue(*value) for key, value in table.items()}
    kind = given.get('kind', preset['kind'])
    if str(kind.value) != str(preset['kind'].value):
        raise ConfigError(
            f'{kind.where}: target.kind={kind.value}: the disk {shown(str(name))} is of kind '
            f'{preset["kind"].value}; take out one of the two'
        )
    return preset | given


def unused_keys(target: Mapping[str, Any], kernel: str) -> list[str]:
    """The keys of [target] that mean nothing, given the others."""
    used = {*kind_keys(target['kind'])}
    if target['disk'] is None:
        used.remove('disk')
    for group in GROUPS:
        if target[group[0]]:
            used.update(group)
    if kernel in THROTTLED:
        used.update(WBT)
    return [name for name in target if name not in used]


def check_target(target: dict[str, Any], given: Table, kernel: str) -> None:
    """Fill in what is auto; a key that changes nothing is a misunderstanding."""
    kind = target['kind']
    for name in unused_keys(target, kernel):
        if name not in given or (target[name] == 0 and name in FIRST):
            continue
        if not isinstance(given[name], PresetValue):
            raise ConfigError(f'{given[name].where}: target.{name} {_why(name, kind)}')
    if target['wbt_lat'] is None:
        target['wbt_lat'] = WBT_LAT_NS.get(kind, WBT_LAT_NS_ELSE)
    refuse(target['size'] % SECTOR, f'target.size={target["size"]}: is no multiple of {SECTOR}')
    for name in ('stripe', 'program_unit', 'track'):
        if name in TARGET_KEYS[kind]:
            value = target[name]
            refuse(value % SECTOR, f'target.{name}={value}: is no multiple of {SECTOR}')
    if kind == 'empirical':
        quantiles = target['quantiles']
        refuse(
            quantiles is None or quantiles.form != 'quantiles',
            'target.quantiles: kind empirical needs percentiles; write p0 60us, p50 80us, p100 1ms',
        )
    if kind == 'python':
        refuse(
            target['component'] is None,
            'target.kind=python: needs target.component=module:function, a SimPy process',
        )
    if kind == 'ssd':
        _check_ssd(target)
    if kind == 'hdd':
        _check_hdd(target)
    for name in ('network_bandwidth', 'bandwidth'):
        refuse(
            0 < target[name] < 1000,
            f'target.{name}={target[name]}: is in bytes per second; write 500m, say',
        )


FIRST = tuple(group[0] for group in GROUPS)


def _why(name: str, kind: str) -> str:
    """Why a key means nothing, and what to do."""
    if name in WBT:
        return (
            'has no meaning: since Linux 6.6 LIO marks its writes so that write-back throttling '
            'lets them pass; take it out or set host.kernel=6.1'
        )
    for group in GROUPS:
        if name in group:
            return f'has no meaning without target.{group[0]}; add that or take it out'
    return f'has no meaning for kind {kind}; take it out or change target.kind'


def _check_ssd(target: Mapping[str, Any]) -> None:
    cache, unit = target['write_cache'], target['program_unit']
    refuse(
        0 < cache < unit,
        f'target.write_cache={format_size(cache)}: holds no program_unit of {format_size(unit)}; '
        'raise it, or 0 for none',
    )
    for every, time in (('gc_every', 'gc_time'), ('background_every', 'background_time')):
        refuse(
            bool(target[every]) != bool(target[time]),
            f'target.{every} and target.{time} go together; give both or neither',
        )


def _check_hdd(target: Mapping[str, Any]) -> None:
    least, most = target['seek_min'], target['seek_max']
    refuse(most < least, 'target.seek_max: is below target.seek_min; raise it')
    tracks = target['size'] // target['track']
    refuse(
        not 2 <= tracks <= TRACKS_MAX,
        f'target.track={format_size(target["track"])}: a LUN of {format_size(target["size"])} has '
        f'{tracks} tracks; 2 to {TRACKS_MAX} can be modelled, change target.track or target.size',
    )
