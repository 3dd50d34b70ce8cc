"""The two halves of a hand-over: a VM and its device stop; a device and its VM start.

`sim stop` puts one behind the other on one host; a migration has the transfer between them, and the
second half on another host. Both are control actions (sim.control.clock), in QEMU's order:

    lead_in      what a policy does a chosen time before the vCPUs pause
    stop_half    pause_all_vcpus, vm_state_notify | the gap | CLEAR_ENDPOINT with its drain,
                 GET_VRING_BASE, notifiers | bdrv_flush_all
    start_half   vm_state_notify, the device's start | resume_all_vcpus, the lead-in undone

They charge the phases vcpu_pause, endpoint, drain, log_sync, ring_base, and device_start, endpoint,
vcpu_resume. Whoever calls them charges what lies between: on return `ring_base` goes on until the
caller enters another phase, and after `start_half` nothing is charged.
"""

from collections.abc import Callable

from sim.control.clock import Action
from sim.control.power import Host
from sim.control.stop_checks import Watch
from sim.control.stop_policy import POLICIES, Policy

DRAIN = POLICIES['drain']


def lead_in(host: Host, policy: Policy) -> Action:
    """The policy's lead time begins; for one that has none nothing happens."""
    if policy.name == 'gate':
        yield from host.file.gate()
    elif policy.name == 'quiesce':
        host.vm.freeze_queues()


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
    control, vm, device = host.control, host.vm, host.device
    costs = control.costs
    _leave_out(host, policy)
    control.enter('vcpu_pause')
    yield from vm.pause_all_vcpus()
    yield from control.pay(costs.vm_state_notify)
    yield from control.pay(gap)
    vm.running = False
    watch = Watch(host)
    if look is not None:
        look(watch)
    host.file.on_cleared = watch.cleared
    yield from device.set_status(device.parent_obj.status)
    control.enter('ring_base')
    yield from control.pay(costs.bdrv_flush)
    watch.stopped()
    return watch


def start_half(host: Host, policy: Policy = DRAIN, watch: Watch | None = None) -> Action:
    """From the start of the device until the vCPUs run; `watch` is that of a stop on this host.

    Errors: VmExitError.
    """
    control, vm, device = host.control, host.vm, host.device
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
    control.enter(None)


def _leave_out(host: Host, policy: Policy) -> None:
    """A wrong policy lacks a mechanism or turns two steps round."""
    device = host.device
    host.file.without = frozenset({policy.name.removeprefix('no-')})
    device.dev.forget_base = policy.name == 'no-sync'
    device.base_first = policy.name == 'base-before-clear'
    device.log_first = policy.name == 'log-before-flush'
