"""QEMU's -device string, as on its command line: 'vhost-scsi-pci,num_queues=4,event_idx=off'."""

import json
from collections.abc import Sequence
from dataclasses import fields

from sim.errors import ConfigError, shown
from sim.features import STACKS, properties_of
from sim.formats import Given, fold, nearest
from sim.formats.keys import Device
from sim.formats.values import WORDS

WHERE = '-device'

# Understood by QEMU and without effect on the data path.
NOTED = {
    'id': 'a name',
    'bus': 'the place on the PCI bus costs nothing here',
    'addr': 'the place on the PCI bus costs nothing here',
    'acpi_index': 'the place on the PCI bus costs nothing here',
    'multifunction': 'the place on the PCI bus costs nothing here',
    'vectors': 'each request queue has a vector of its own',
    'vhostfd': 'no file is opened',
    'chardev': 'no socket is opened',
    'iothread': 'an IOThread serves the device anyway',
    'param_change': 'no events are modelled',
    'rombar': 'the firmware is not modelled',
    'romfile': 'the firmware is not modelled',
    'any_layout': 'Linux lays out its requests the same way with and without',
    'notify_on_empty': 'Linux does not ask for it',
    'queue_reset': 'no queue is reset',
    'disable_legacy': 'the guest driver is a modern one',
    'ats': 'there is no IOMMU',
}
# Of those, the ones that not every driver has.
OWN_NOTED = {
    'vhostfd': ('vhost-scsi-pci', 'vhost-scsi'),
    'chardev': ('vhost-user-scsi-pci',),
    'iothread': ('virtio-scsi-pci',),
    'param_change': ('virtio-scsi-pci', 'vhost-user-scsi-pci'),
}
NOT_MODELLED = {
    'iothread_vq_mapping': 'several IOThreads for one device are not modelled yet; use iothread=',
}
# Understood, with one value that is modelled.
ONLY = {
    'ioeventfd': (True, 'kicks through the QEMU process are not modelled'),
    'iommu_platform': (False, 'a virtual IOMMU is not modelled'),
    'disable_modern': (False, 'the legacy ring layout is not modelled'),
    'modern_pio_notify': (False, 'kicks by port I/O are not modelled'),
    'page_per_vq': (False, 'a doorbell page per queue is not modelled'),
}

# Every property of any device that sets a feature bit.
FEATURE_PROPERTIES = {name for driver in STACKS for name in properties_of(driver)}


def parse_device(text: str) -> tuple[dict[str, Given], list[str]]:
    """The device section's keys in a -device string or its JSON form, and notes on what is ignored.

    Raises ConfigError for an unknown property or one whose effect is not modelled.
    """
    return parse_pairs(pairs(text))


def feature_switches(text: str) -> tuple[dict[str, bool], list[tuple[str, object]]]:
    """What a -device string says of feature bits that are no keys of [device], and all the rest."""
    known = {field.name for field in fields(Device)}
    found: dict[str, bool] = {}
    rest: list[tuple[str, object]] = []
    for name, value in pairs(text):
        if fold(name) in known or fold(name) not in FEATURE_PROPERTIES:
            rest.append((name, value))
        elif str(value).lower() in WORDS:
            found[fold(name)] = WORDS[str(value).lower()]
        else:
            raise ConfigError(f'{WHERE}: {name}={shown(value)}: is neither on nor off')
    return found, rest


def parse_pairs(given: Sequence[tuple[str, object]]) -> tuple[dict[str, Given], list[str]]:
    """As parse_device, of properties that pairs() has read."""
    known = {field.name for field in fields(Device)}
    found: dict[str, Given] = {}
    notes: list[str] = []
    driver = next((str(value) for name, value in given if name == 'driver'), '')
    for name, value in given:
        key = fold(name)
        if key in known:
            found[key] = Given(value, WHERE)
        elif driver and driver not in OWN_NOTED.get(key, (driver,)):
            raise ConfigError(f'{WHERE}: {driver} has no property {name}; take it out')
        elif key in NOT_MODELLED:
            raise ConfigError(f'{WHERE}: {name}: {NOT_MODELLED[key]}')
        elif key in NOTED:
            notes.append(f'{WHERE}: {name} has no effect here: {NOTED[key]}')
        elif key in ONLY:
            wanted, reason = ONLY[key]
            if WORDS.get(str(value).lower()) is not wanted:
                raise ConfigError(f'{WHERE}: {name}={value}: {reason}; take it out')
        else:
            close = nearest(key, {*known, *NOTED, *ONLY})
            raise ConfigError(f'{WHERE}: no property {shown(name)}; the nearest is {close!r}')
    if driver == 'virtio-scsi-pci' and 'iothread' not in {fold(name) for name, _ in given}:
        notes.append(
            f"{WHERE}: without iothread= QEMU's main loop would serve the device; here an "
            'IOThread does'
        )
    return found, notes


def pairs(text: str) -> list[tuple[str, object]]:
    """The properties in the order of the text, the driver under the name 'driver'."""
    rest = text.strip().removeprefix('-device ').strip()
    if rest.startswith('{'):
        return json_pairs(rest)
    # ',,' is a comma inside a value.
    parts = [part.replace('\0', ',') for part in rest.replace(',,', '\0').split(',')]
    result: list[tuple[str, object]] = []
    for position, part in enumerate(parts):
        name, equals, value = part.partition('=')
        if not name.strip():
            raise ConfigError(f'{WHERE}: a property without a name in {shown(text)}')
        if position == 0 and not equals:
            result.append(('driver', name.strip()))
        else:  # a bare name switches on, as in old command lines
            result.append((name.strip(), value.strip() if equals else 'on'))
    return result


def json_pairs(text: str) -> list[tuple[str, object]]:
    """The properties of the JSON form that libvirt writes."""
    try:
        return list(json.loads(text).items())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{WHERE}: not valid JSON: {error}') from None
