"""What goes wrong in a migration or a stop, as people write it: `migration.faults`, --fault.

    link_cut@ram_rest+1ms, set_endpoint=ENODEV@destination, disk_stuck=2s@drain

A fault is NAME[=VALUE]@PLACE[+TIME]. The place is a phase, and the fault strikes so long after its
beginning; a step of QEMU's that fails has a side for a place, where it fails from the beginning on.
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sim.errors import ConfigError, shown
from sim.units import parse_time_ns

BEFORE = ('setup', 'precopy')  # of a migration, while the VM runs on the source
STOP_PHASES = (
    'vcpu_pause', 'endpoint', 'drain', 'log_sync', 'ring_base', 'device_start', 'vcpu_resume',
)  # fmt: skip
PHASES = (
    *BEFORE, 'vcpu_pause', 'endpoint', 'drain', 'log_sync', 'ring_base', 'ram_rest', 'state_save',
    'transfer', 'state_load', 'device_start', 'vcpu_resume',
)  # fmt: skip
SIDES = ('source', 'destination')

# What strikes at a time, and what it does. The first ones make sense in a stop on one host, too.
STRIKES = {
    'disk_stuck': 'every disk stands still, for =TIME or for ever',
    'worker_killed': 'SIGKILL ends the vhost workers of the side that the phase is on',
    'link_cut': 'the connection between the hosts is reset',
    'cancel': 'somebody says migrate_cancel; QEMU acts on it once it has its big lock again',
    'source_killed': "SIGKILL ends the source's QEMU",
    'destination_killed': "SIGKILL ends the destination's QEMU",
    'log_memory': 'QEMU gets no memory for the log that it shares with vhost; at setup only',
}
OF_A_STOP = ('disk_stuck', 'worker_killed')

# Ioctls that can fail, with the errno that each has without a value.
IOCTLS = {
    'get_abi_version': 'ENOTTY',
    'set_features': 'EFAULT',
    'set_mem_table': 'ENOMEM',
    'set_vring_num': 'EFAULT',
    'set_vring_base': 'EFAULT',
    'set_vring_addr': 'EFAULT',
    'set_vring_kick': 'EBADF',
    'set_log_base': 'ENOMEM',
    'set_endpoint': 'ENODEV',
    'clear_endpoint': 'EFAULT',
    'get_vring_base': 'EFAULT',
}
SCSI_IOCTLS = ('get_abi_version', 'set_endpoint', 'clear_endpoint')
NOTIFIERS = {  # of QEMU, whoever serves the device over vhost
    'host_notifiers': 'EMFILE',  # ioeventfds
    'guest_notifiers': 'ENOSPC',  # irqfds and their routes
}
FAIL = IOCTLS | NOTIFIERS  # on a side, every time

FORM = re.compile(r'(?P<name>\w+)(=(?P<value>\w+))?@(?P<place>\w+)(\+(?P<time>[\w.µ]+))?')


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. `after`: ns behind the beginning of `place`; `lasts`: ns, None for ever; `errno`:
    what the ioctl answers, 0 for what is no ioctl.
    """

    text: str
    name: str
    place: str
    after: int = 0
    lasts: int | None = None
    errno: int = 0

    @property
    def ioctl(self) -> str:
        """The ioctl's name in the diary of control; that of notifiers."""
        if self.name in NOTIFIERS:
            return self.name
        prefix = 'VHOST_SCSI_' if self.name in SCSI_IOCTLS else 'VHOST_'
        return prefix + self.name.upper()


def parse_faults(
    text: str | None, key: str = 'migration.faults', *, stop: bool = False
) -> tuple[Fault, ...]:
    """The faults of a text; `stop`: those of a stop on one host. Errors: ConfigError."""
    if text is None:
        return ()
    return tuple(_parse(part.strip(), key, stop) for part in text.split(','))


def _parse(text: str, key: str, stop: bool) -> Fault:
    match = FORM.fullmatch(text)
    if match is None:
        raise ConfigError(
            f'{key}={shown(text)}: not a fault; write NAME[=VALUE]@PLACE[+TIME], as in '
            'link_cut@ram_rest+1ms'
        )
    name, value, place = match['name'], match['value'], match['place']
    known = (*(OF_A_STOP if stop else STRIKES), *FAIL)
    _refuse(name not in known, f'{key}={text}: no fault {name}', known)
    if name in FAIL:
        return _failing(text, key, match, stop)
    places = STOP_PHASES if stop else PHASES
    _refuse(place not in places, f'{key}={text}: no phase {place}', places)
    if name == 'log_memory' and place != 'setup':
        raise ConfigError(f'{key}={text}: the log is allocated at setup; write log_memory@setup')
    if value is not None and name != 'disk_stuck':
        raise ConfigError(f'{key}={text}: {name} takes no value; write {name}@{place}')
    return Fault(
        text=text,
        name=name,
        place=place,
        after=_time(match['time'], text, key) if match['time'] else 0,
        lasts=None if value is None else _time(value, text, key),
    )


def _failing(text: str, key: str, match: re.Match[str], stop: bool) -> Fault:
    name, place = match['name'], match['place']
    sides = SIDES[:1] if stop else SIDES
    _refuse(place not in sides, f'{key}={text}: {name} fails on a side, not at {place}', sides)
    if match['time']:
        raise ConfigError(f'{key}={text}: {name} fails every time; take +{match["time"]} out')
    number = match['value'] or FAIL[name]
    if not hasattr(errno, number) or number != number.upper():
        raise ConfigError(f'{key}={text}: {number} is no errno; write one as in {FAIL[name]}')
    return Fault(text=text, name=name, place=place, errno=-getattr(errno, number))


def _refuse(wrong: bool, what: str, known: Sequence[str]) -> None:
    if wrong:
        raise ConfigError(f'{what}; known: {", ".join(known)}')


def _time(text: str, whole: str, key: str) -> int:
    try:
        return parse_time_ns(text)
    except ConfigError as error:
        raise ConfigError(f'{key}={whole}: {error}') from None
