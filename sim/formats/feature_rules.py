"""The feature bits that a config asks for: what device and driver agree on, what is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim import features
from sim.errors import ConfigError
from sim.formats import refuse
from sim.formats.keys import KERNELS
from sim.formats.layer import Layer, Table, tree_of
from sim.formats.qemu import feature_switches, parse_pairs
from sim.formats.section import Values, values
from sim.formats.toml import config_file, read_toml

FEATURE_KEYS = ('packed', 'event_idx', 'indirect_desc', 'in_order', 't10_pi', 'hotplug')


def negotiate(
    device: Values, guest: Values, host: Values, qemu: Values, *, hypothetical: bool
) -> features.Negotiation:
    """The negotiation of the bits that the sections ask for."""
    return features.negotiate(
        driver=device['driver'],
        qemu=qemu['version'],
        host_kernel=host['kernel'],
        guest_kernel=guest['kernel'],
        properties={
            name: device[name]
            for name in FEATURE_KEYS
            if name in features.properties_of(device['driver'])
        },
        hypothetical=hypothetical,
    )


def check_features(
    device: dict[str, Any],
    guest: Values,
    host: Values,
    qemu: Values,
    given: Mapping[str, Table],
    notes: list[str],
    *,
    hypothetical: bool,
) -> None:
    """What the backend offers, and what becomes of asking for more: refused, or off with a note.

    No note on what nobody has asked for: it was only a default.
    """
    agreed = negotiate(device, guest, host, qemu, hypothetical=hypothetical)
    rows = features.properties_of(device['driver'])
    asked = {name: rows[name].bit for name in FEATURE_KEYS if device[name]}
    for name, bit in asked.items():
        since = rows[name].since
        if since and name in agreed.missing and not hypothetical:
            raise ConfigError(
                f'device.{name}=on: QEMU {qemu["version"]} has no such property, it came with '
                f'{since[0]}.{since[1]}; take it out or raise qemu.version'
            )
        refuse(agreed.refused >> bit & 1, f'device.{name}=on: {agreed.refusal}; take it out')
        if agreed.has(bit):
            continue
        device[name] = False
        if name not in given['device']:
            continue
        label = features.name_of(bit)
        if agreed.masked >> bit & 1:
            reason = f'{agreed.backend_name} does not offer {label}, QEMU masks it'
        else:
            able = [k for k in KERNELS if features.linux_accepts(k) >> bit & 1]
            reason = f'Linux {guest["kernel"]} in the guest does not ack {label}'
            reason += f' (guest.kernel={able[0]} does)' if able else ''
        notes.append(f'device.{name}=on: {reason}: it is off')
    if hypothetical and not agreed.hypothetical:
        notes.append('run.hypothetical=on has no effect: nothing hypothetical is asked for')


def agreement(
    *, toml: str | Path | None = None, device: str | None = None, sets: Sequence[str] = ()
) -> features.Negotiation:
    """The negotiation alone, of any driver, whether or not the device would start with it.

    Sources as of load(); in the -device string every property that sets a feature bit counts.
    Errors: ConfigError, as of load().
    """
    layers = [] if toml is None else [Layer(*read_toml(config_file(toml)))]
    switches: dict[str, bool] = {}
    if device is not None:
        switches, rest = feature_switches(device)
        layers.append(Layer({'device': parse_pairs(rest)[0]}))
    layers.append(Layer(tree_of(sets), lambda dotted, nth: '--set'))
    names = ('device', 'guest', 'host', 'qemu', 'run')
    merged: dict[str, Table] = {name: {} for name in names}
    for layer in layers:
        for name in names:
            merged[name] |= layer.tables.get(name, {})
    found = {name: values(name, table, modelled=False) for name, table in merged.items()}
    driver = found['device']['driver']
    known = features.properties_of(driver)
    given = {name: found['device'][name] for name in FEATURE_KEYS if name in merged['device']}
    given = switches | given
    for name in given:
        refuse(name not in known, f'{name}: is no property of {driver}; take it out')
    return features.negotiate(
        driver=driver,
        qemu=found['qemu']['version'],
        host_kernel=found['host']['kernel'],
        guest_kernel=found['guest']['kernel'],
        properties=given,
        hypothetical=found['run']['hypothetical'],
    )
