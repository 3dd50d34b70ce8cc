"""The keys of a live migration, by QEMU's names where QEMU has them: the table [migration].

[migration]
at = "100ms"
downtime_limit = "300ms"
"""

from dataclasses import dataclass
from typing import Any

from sim.formats.key import key

HOUR_NS = 3600 * 10**9
MIB, GIB = 1 << 20, 1 << 30
VFIO_STATE = 4496 << 10  # E. Ufimtseva, qemu-devel, 2024-07-26: "vfio device transferred"
AUTO: Any = None
KERNELS = ('6.1', '6.12', '7.2')
QEMUS = ('4.2', '5.2', '7.2', '8.2', '9.2', '10.0', '10.1', '10.2')
MECHANISMS = (
    'nothing', 'state', 'final_sync', 'vhost_log', 'log_all', 'vring_log', 'kvm_log', 'disk',
    'target_state', 'order',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One migration of the VM while its jobs run."""

    at: int = key(10_000_000, 'time', 'when it begins', unit='ms', high=HOUR_NS)
    policy: str = key('drain', 'text', 'how the device is stopped: a policy of sim stop')
    lead: int = key(
        0, 'time', 'how long before the vCPUs pause a policy with a lead time begins', unit='ms',
        high=HOUR_NS,
    )  # fmt: skip
    depth: int | None = key(
        None, 'int', 'policy=throttle: how many requests a LUN may have out; none: 1', low=1,
        high=1024,
    )  # fmt: skip
    timeout: int | None = key(
        None, 'time', 'policy=timeout: when the drain is given up; none: 4 s, as SPDK', unit='s',
        high=HOUR_NS,
    )  # fmt: skip
    gap: int = key(
        0, 'time', 'between the standstill of the vCPUs and the stop of the device', unit='us',
        high=HOUR_NS,
    )  # fmt: skip
    downtime_limit: int = key(
        300_000_000, 'time', 'downtime-limit: what the rest of RAM may take', unit='ms',
        high=HOUR_NS,
    )  # fmt: skip
    max_bandwidth: int = key(
        128 * MIB, 'size', 'max-bandwidth of the pre-copy in bytes per second, 0 for no limit'
    )
    avail_switchover_bandwidth: int = key(
        0, 'size', 'avail-switchover-bandwidth in bytes per second, 0: as measured'
    )
    auto_converge: bool = key(False, 'bool', 'auto-converge: slow the vCPUs down')
    cpu_throttle_initial: int = key(20, 'int', 'cpu-throttle-initial, %', low=1, high=99)
    cpu_throttle_increment: int = key(10, 'int', 'cpu-throttle-increment, %', low=1, high=99)
    max_cpu_throttle: int = key(99, 'int', 'max-cpu-throttle, %', low=1, high=99)
    throttle_trigger_threshold: int = key(
        50, 'int', 'throttle-trigger-threshold: dirtied bytes in % of those sent', low=1, high=100
    )
    return_path: bool = key(
        False, 'bool', "return-path: the source waits for the destination's word (libvirt: on)"
    )
    give_up: int = key(
        60 * 10**9, 'time', 'whoever watches cancels it after so long, if it has not converged',
        unit='s', low=1, high=24 * HOUR_NS,
    )  # fmt: skip
    run_on: int | None = key(
        None, 'time', 'the jobs end so long after the VM goes on; none: as they would without a '
        'migration', unit='ms', high=HOUR_NS,
    )  # fmt: skip
    ram: int = key(1 * GIB, 'size', 'of the VM, with what its I/O uses', low=1)
    ram_used: int | None = key(
        None, 'size', 'of it, what was ever written; the rest are zero pages; none: all. An idle '
        'Linux has written ram/64 and some hundred MiB'
    )  # fmt: skip
    dirty_rate: int = key(
        0, 'size', 'bytes per second that the vCPUs write beside the I/O, in distinct places'
    )
    hot_set: int = key(0, 'size', 'bytes that get all of it; 0: spread over all RAM in use')
    link_bandwidth: int = key(1_250_000_000, 'size', 'of the link, bytes per second', low=1)
    link_latency: int = key(50_000, 'time', 'one way, of the link', unit='us', high=10 * 10**9)
    vfio_devices: int = key(
        0, 'int', 'functions passed through with VFIO: they are stopped, saved, loaded and started '
        'as well', high=64,
    )  # fmt: skip
    vfio_state: int | None = key(
        None, 'size', 'bytes that each of them saves; none: 4496k, what one was seen to save'
    )
    storage: str = key(
        'shared', 'choice', 'how the medium reaches the destination: shared, copied by the '
        'orchestrator once the source has stopped, or copied when the migration begins',
        choices=('shared', 'copied', 'copied_early'),
    )  # fmt: skip
    target_state: bool = key(
        True, 'bool', 'the orchestrator moves reservations, unit attentions and LUN maps'
    )
    reservation: bool = key(
        False, 'bool', 'the guest holds a persistent reservation (write exclusive) of its LUNs'
    )
    local: bool = key(False, 'bool', 'the destination is on the same host, with the same LIO')
    to_kernel: str = key(
        AUTO, 'choice', "the destination host's Linux; auto is host.kernel", choices=KERNELS
    )
    to_qemu: str = key(AUTO, 'choice', 'its QEMU; auto is qemu.version', choices=QEMUS)
    to_device: str | None = key(
        None, 'text', "options of its -device that differ, such as virtqueue_size=256"
    )
    without: str = key(
        'nothing', 'choice', 'a mechanism that is left out, to see what it is good for: state (the '
        'device is not loaded), final_sync (of the bitmaps), vhost_log or one of its two bits '
        '(log_all: buffers, vring_log: used rings), kvm_log, disk (the '
        'destination has the medium of the beginning), target_state, order (the destination starts '
        'before the source has stopped)', choices=MECHANISMS,
    )  # fmt: skip
    faults: str | None = key(
        None,
        'text',
        'what goes wrong, as in link_cut@ram_rest+1ms, with commas between them '
        '(docs/reference/migration.md)',
    )

    @property
    def state_of_device(self) -> int:
        """Bytes that each function passed through with VFIO saves."""
        return VFIO_STATE if self.vfio_state is None else self.vfio_state
