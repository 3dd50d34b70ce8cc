"""The LUNs: [target] describes one, target.luns says how many like it, [[lun]] tables each of them.

A [[lun]] table that names a disk or a kind stands for itself, any other changes what [target] says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import ConfigError
from sim.formats.disk_keys import Target
from sim.formats.disks import PresetValue, check_target, lay_preset
from sim.formats.keys import LUN_PLACE
from sim.formats.layer import Table
from sim.formats.values import convert
from sim.units import format_size

SIZE_MAX = 1 << 40  # bytes of all LUNs together; the media take a 64th of that in memory


@dataclass(frozen=True, kw_only=True)
class Lun:
    """One LUN: its number, the target that has it (vhost-scsi's tpgt), and the disk behind it."""

    number: int
    target: int
    disk: Target

    def __str__(self) -> str:
        return f'LUN {self.number} of target {self.target}'


def alike(target: Target, tpgt: int) -> tuple[Lun, ...]:
    """The LUNs of target.luns."""
    return tuple(Lun(number=number, target=tpgt, disk=target) for number in range(target.luns))


def resolve_luns(
    tables: Sequence[Table],
    base: Table,
    tpgt: int,
    kernel: str,
    values: Callable[[str, Table], dict[str, Any]],
) -> tuple[Lun, ...]:
    """The LUNs of [[lun]] tables; ConfigError where two are one, or one cannot be.

    `base` are the keys of [target], `tpgt` the target of a LUN that names none, `values` converts
    a section.
    """
    if tables and 'luns' in base:
        place = base['luns'].where
        raise ConfigError(f'{place}: target.luns: there are [[lun]] tables; take out one of them')
    found: list[Lun] = []
    for table in tables:
        own = lay_preset({key: given for key, given in table.items() if key not in LUN_PLACE})
        kept = ['size'] if 'kind' in own else list(base)
        inherited = {key: PresetValue(*base[key]) for key in kept if key in base}
        disk = values('target', inherited | own)
        check_target(disk, inherited | own, kernel)
        target = _place(table, 'target', tpgt)
        taken = [lun.number for lun in found if lun.target == target]
        free = next(number for number in range(len(found) + 1) if number not in taken)
        lun = Lun(number=_place(table, 'number', free), target=target, disk=Target(**disk))
        if lun.number in taken:
            raise ConfigError(f'{table["number"].where}: lun.number: {lun} is there twice')
        found.append(lun)
    return tuple(found)


def check_sizes(luns: Sequence[Lun]) -> None:
    """ConfigError if the LUNs together are more than a machine's memory can keep in mind."""
    total = sum(lun.disk.size for lun in luns)
    if total > SIZE_MAX:
        raise ConfigError(
            f'target.size: all LUNs together have {format_size(total)}, and at most '
            f'{format_size(SIZE_MAX)} can be modelled; make them smaller'
        )


def _place(table: Table, name: str, otherwise: int) -> int:
    if name not in table:
        return otherwise
    return int(convert(LUN_PLACE[name].metadata['key'], f'lun.{name}', table[name]))


def lun_of_job(job: Mapping[str, Any], where: str, luns: Sequence[Lun]) -> int:
    """Which LUN a job works on: its place among them; ConfigError if there is none such."""
    for index, lun in enumerate(luns):
        if (lun.number, lun.target) == (job['lun'], job['target']):
            return index
    known = ', '.join(str(lun) for lun in luns[:8])
    raise ConfigError(
        f'{where}.lun={job["lun"]}: target {job["target"]} has no such LUN; there is {known}'
    )
