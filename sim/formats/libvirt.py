"""The virtio-scsi device of a libvirt domain XML (virsh dumpxml), as QEMU is given it.

    <controller type='scsi' model='virtio-scsi'>     virtio-scsi-pci
      <driver queues= cmd_per_lun= max_sectors= ioeventfd= iothread= packed= iommu= .../>
    <hostdev mode='subsystem' type='scsi_host'>      vhost-scsi-pci
      <source protocol='vhost' wwpn='naa....'/> <boot order=/>

A vhost hostdev is taken before controllers, which a domain has for other disks. <vcpu> is
guest.vcpus. <qemu:override> adds properties by the alias of the device. Of the machine type what
changes the device's defaults counts (QEMU hw/core/machine.c: hw_compat_4_2, 5_1, 7_1). Source of
the names: libvirt docs/formatdomain.rst, src/qemu/qemu_command.c.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from sim.errors import ConfigError, shown
from sim.formats import Given, fold, nearest, read_text
from sim.formats.qemu import parse_pairs

Element = ElementTree.Element
Pairs = list[tuple[str, object]]

QEMU = '{http://libvirt.org/schemas/domain/qemu/1.0}'
MODELS = ('virtio-scsi', 'virtio-transitional', 'virtio-non-transitional')
PROPERTIES = {  # of <driver>, and the property of -device
    'queues': 'num_queues',
    'cmd_per_lun': 'cmd_per_lun',
    'max_sectors': 'max_sectors',
    'ioeventfd': 'ioeventfd',
    'iommu': 'iommu_platform',
    'ats': 'ats',
    'packed': 'packed',
    'page_per_vq': 'page-per-vq',
}
IGNORED = {  # what else may stand in the domain, would matter on a machine, and does not here
    'cputune': 'vCPUs and workers have CPUs of their own',
    'numatune': 'memory is near every CPU',
    'memoryBacking': 'memory is simply there',
}
# hw_compat: up to which machine type a property has another default, and of which devices.
COMPAT = (
    ((4, 2), 'virtqueue_size', 128, ('virtio-scsi-pci',)),
    ((4, 2), 'seg_max_adjust', 'off', ('virtio-scsi-pci', 'vhost-scsi-pci')),
    ((5, 1), 'num_queues', 1, ('virtio-scsi-pci', 'vhost-scsi-pci')),
    ((7, 1), 'queue_reset', 'off', ('virtio-scsi-pci', 'vhost-scsi-pci')),
)


def parse_libvirt(path: str | Path) -> tuple[dict[str, dict[str, Given]], list[str]]:
    """The sections 'device' and 'guest' that a domain says something of, and notes.

    Raises ConfigError for what is no domain, has no virtio-scsi device or more than one that could
    be meant, or asks for what is not modelled.
    """
    domain = read_domain(path)
    pairs, place, notes = device_pairs(domain, str(path))
    where = f'{path}: {place}'
    try:
        found, told = parse_pairs(pairs)
    except ConfigError as error:
        raise ConfigError(f'{where}: {str(error).removeprefix("-device: ")}') from None
    tables = {'device': {key: Given(given.value, where) for key, given in found.items()}}
    notes += [f'{where}: {note.removeprefix("-device: ")}' for note in told]
    if (vcpu := domain.find('vcpu')) is not None:
        count = vcpu.get('current') or vcpu.text or ''
        tables['guest'] = {'vcpus': Given(count.strip(), f'{path}: <vcpu>')}
    notes += [
        f'{path}: <{name}> has no effect here: {reason}'
        for name, reason in IGNORED.items()
        if domain.find(name) is not None
    ]
    return tables, notes


def read_domain(path: str | Path) -> Element:
    """The <domain> element of a file."""
    text = read_text(Path(path))
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        raise ConfigError(f'{path}: a domain XML has no DOCTYPE and no entities; take them out')
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ConfigError(f'{path}: is no XML: {error}') from None
    if root.tag != 'domain':
        raise ConfigError(f'{path}: begins with <{root.tag}>; give a <domain>, as of virsh dumpxml')
    return root


def device_pairs(domain: Element, path: str) -> tuple[Pairs, str, list[str]]:
    """Properties of the device as -device has them, which element it is, and notes."""
    devices = domain.find('devices')
    children: Iterable[Element] = () if devices is None else devices
    hosts, controllers = [], []
    for element in children:
        if element.tag == 'hostdev' and element.get('type') == 'scsi_host':
            hosts.append(element)
        elif (
            element.tag == 'controller'
            and element.get('type') == 'scsi'
            and element.get('model') in MODELS
        ):
            controllers.append(element)
    chosen = hosts or controllers
    if not chosen:
        raise ConfigError(
            f"{path}: no virtio-scsi device: neither <hostdev type='scsi_host'> nor <controller "
            "type='scsi' model='virtio-scsi'>"
        )
    if len(chosen) > 1:
        raise ConfigError(f'{path}: {len(chosen)} devices {_name(chosen[0])}; leave one of them')
    (element,) = chosen
    notes = []
    if hosts and controllers:
        notes.append(f'{path}: {_name(controllers[0])} is left out: the vhost device is taken')
    driver, pairs = (_hostdev if hosts else _controller)(element, path)
    pairs += _override(domain, element, path)
    compat = _compat(domain, driver, {fold(name) for name, _ in pairs})
    notes += [
        f'{path}: the machine type has {name}={value} as its default' for name, value in compat
    ]
    _no_command_line(domain, path)
    return [('driver', driver), *pairs, *compat], _name(element), notes


def _name(element: Element) -> str:
    alias = element.find('alias')
    named = '' if alias is None else f' {alias.get("name", "")}'
    return f'<{element.tag}>{named}'


def _hostdev(element: Element, path: str) -> tuple[str, Pairs]:
    source = element.find('source')
    if source is None or source.get('protocol') != 'vhost':
        raise ConfigError(f"{path}: {_name(element)}: only <source protocol='vhost'> is modelled")
    if source.get('wwpn') is None:
        raise ConfigError(f'{path}: {_name(element)}: <source> has no wwpn, which vhost-scsi needs')
    pairs: Pairs = [('wwpn', source.get('wwpn'))]
    if (boot := element.find('boot')) is not None and boot.get('order') is not None:
        pairs.append(('bootindex', boot.get('order')))
    return 'vhost-scsi-pci', pairs


def _controller(element: Element, path: str) -> tuple[str, Pairs]:
    pairs: Pairs = []
    for driver in element.findall('driver'):
        for name, value in driver.attrib.items():
            if name == 'iothread':
                pairs.append(('iothread', f'iothread{value}'))
            elif name in PROPERTIES:
                pairs.append((PROPERTIES[name], value))
            else:
                close = nearest(name, {*PROPERTIES, 'iothread'})
                raise ConfigError(
                    f'{path}: {_name(element)}: <driver {name}=> is not known; the nearest is '
                    f'{close!r}'
                )
        if (threads := driver.find('iothreads')) is not None:
            pairs.append(('iothread-vq-mapping', json.dumps(_mapping(threads))))
    return 'virtio-scsi-pci', pairs


def _mapping(threads: Element) -> list[dict[str, object]]:
    """<iothreads> as QEMU's iothread-vq-mapping."""
    rows: list[dict[str, object]] = []
    for thread in threads.findall('iothread'):
        queues = [int(queue.get('id', '0')) for queue in thread.findall('queue')]
        row: dict[str, object] = {'iothread': f'iothread{thread.get("id")}'}
        rows.append(row | ({'vqs': queues} if queues else {}))
    return rows


def _override(domain: Element, element: Element, path: str) -> Pairs:
    """The properties of <qemu:override> for the device."""
    alias = element.find('alias')
    pairs: Pairs = []
    for device in domain.iterfind(f'{QEMU}override/{QEMU}device'):
        if alias is None or device.get('alias') != alias.get('name'):
            continue
        for row in device.iterfind(f'{QEMU}frontend/{QEMU}property'):
            if row.get('name') is None or row.get('value') is None:
                raise ConfigError(f'{path}: <qemu:property> needs name and value')
            words = {'true': 'on', 'false': 'off'} if row.get('type') == 'bool' else {}
            value = row.get('value', '')
            pairs.append((row.get('name', ''), words.get(value, value)))
    return pairs


def _compat(domain: Element, driver: str, given: set[str]) -> Pairs:
    """What the machine type changes of the defaults."""
    kind = domain.find('os/type')
    match = re.search(r'-(\d+)\.(\d+)$', '' if kind is None else kind.get('machine', ''))
    if not match:
        return []
    machine = int(match[1]), int(match[2])
    return [
        (name, value)
        for until, name, value, drivers in COMPAT
        if machine <= until and driver in drivers and name not in given
    ]


def _no_command_line(domain: Element, path: str) -> None:
    """Refuse arguments that may change the device behind libvirt's back."""
    arguments: Sequence[str] = [
        row.get('value', '') for row in domain.iterfind(f'{QEMU}commandline/{QEMU}arg')
    ]
    for argument in arguments:
        if 'scsi' in argument:
            raise ConfigError(
                f'{path}: <qemu:arg value={shown(argument)}> may change the device and is not '
                'read; say it with --device or --set'
            )
