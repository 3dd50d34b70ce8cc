"""The two halves of a hand-over: a VM and its device stop; a device and its VM start.

`sim stop` puts one behind the other on one host; a migration has the transfer between them, and the
second half on another host. All are control actions (sim.control.clock), in QEMU's order:

    prepare      what a policy needs from the beginning of the run on; takes no time
    lead_in      what a policy does a chosen time before the vCPUs pause
    stop_half    pause_all_vcpus, vm_state_notify | the gap | the device's stop | bdrv_flush_all
    start_half   vm_state_notify, the device's start | resume_all_vcpus, the lead-in undone

    the device's stop     kernel: CLEAR_ENDPOINT with its drain, GET_VRING_BASE, notifiers. SPDK:
                          GET_VRING_BASE, which drains, notifiers. QEMU's own: the IOThread taken
                          off, the block layer drained, notifiers

They charge the phases vcpu_pause, endpoint, drain, log_sync, ring_base, and device_start, endpoint,
vcpu_resume. Whoever calls them charges what lies between: on return `ring_base` goes on until the
caller enters another phase, and after `start_half` nothing is charged.
"""

from collections.abc import Callable

from sim.control.clock import Action
from sim.control.power import Host
from sim.control.stop_checks import Watch
from sim.control.stop_policy import POLICIES, Policy
from sim.device import VHostSCSICommon
from sim.units import ns_to_cycles

DRAIN = POLICIES['drain']
REGION = ('inflight', 'no-region', 'no-cancel')  # policies with an in-flight region


def prepare(host: Host, policy: Policy) -> None:
    """Before anything is in flight: an in-flight region, for a policy that needs one.

    Errors: ConfigError where the rings have no such region.
    """
    end, device = host.backend, host.virtio
    if policy.name in REGION and isinstance(device, VHostSCSICommon):
        end.keeps = device.tracks = True
        end.agree_on_regions(None, device.parent_obj.guest_features)


def hand_over_regions(source: Host, there: Host, policy: Policy) -> None:
    """The in-flight regions reach the host that the device starts on next, for such a policy."""
    prepare(there, policy)
    here, arrived = source.virtio, there.virtio
    if isinstance(here, VHostSCSICommon) and isinstance(arrived, VHostSCSICommon):
        arrived.inflight = here.inflight


def _instruct(host: Host, policy: Policy) -> None:
    """What the policy leaves out, turns round, or does not wait for."""
    end, device = host.backend, host.virtio
    end.without = frozenset({policy.name.removeprefix('no-')})
    if policy.timeout is not None:
        end.patience = int(ns_to_cycles(policy.timeout, host.cpu_hz))
    if not isinstance(device, VHostSCSICommon):
        return
    device.dev.forget_base = policy.name == 'no-sync'
    device.base_first = policy.name == 'base-before-clear'
    device.log_first = policy.name == 'log-before-flush'
    device.suspends = policy.name == 'suspend'


def lead_in(host: Host, policy: Policy) -> Action:
    """The policy's lead time begins; for one that has none nothing happens."""
    if policy.name == 'gate':
        yield from host.backend.gate()
    elif policy.name == 'look':
        host.backend.gated = True
    elif policy.name == 'quiesce':
        host.vm.freeze_queues()
    elif policy.name == 'throttle':
        assert policy.depth is not None
        host.vm.set_queue_depth(policy.depth)


def stop_half(
    host: Host,
    policy: Policy = DRAIN,
    *,
    gap: int = 0,
    look: Callable[[Watch], None] | None = None,
) -> Action:
    """From the pause of the vCPUs to the end of the device's stop; returns the Watch over it.

    `gap`: cycles between the vCPUs' standstill and the device's stop. `look` is called at the end
    of the gap, when nothing is stopped yet but the vCPUs. Errors: VmExitError.
    """
    control, vm, device = host.control, host.vm, host.virtio
    costs = control.costs
    _instruct(host, policy)
    control.enter('vcpu_pause')
    yield from vm.pause_all_vcpus()
    yield from control.pay(costs.vm_state_notify)
    yield from control.pay(gap)
    vm.running = False
    watch = Watch(host, region=policy.name != 'no-region')
    if look is not None:
        look(watch)
    host.backend.on_cleared = watch.cleared
    yield from device.set_status(device.parent_obj.status)
    if policy.name in REGION and isinstance(device, VHostSCSICommon):
        device.inflight = None if policy.name == 'no-region' else host.backend.inflight_regions()
    control.enter('ring_base')
    yield from control.pay(costs.bdrv_flush)
    watch.stopped()
    return watch


def start_half(host: Host, policy: Policy = DRAIN, watch: Watch | None = None) -> Action:
    """From the start of the device until the vCPUs run; `watch` is that of a stop on this host.

    Errors: VmExitError.
    """
    control, vm, device = host.control, host.vm, host.virtio
    control.enter('device_start')
    yield from control.pay(control.costs.vm_state_notify)
    if watch is not None:
        watch.still_stopped()
    vm.running = True
    yield from device.set_status(device.parent_obj.status)
    control.enter('vcpu_resume')
    yield from vm.resume_all_vcpus()
    if policy.name == 'quiesce':
        vm.unfreeze_queues()
    elif policy.name == 'throttle':
        vm.set_queue_depth(None)
    control.enter(None)
