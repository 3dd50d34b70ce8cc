"""What the vhost worker does for control and event queue (the bytes are control_queue's)."""

import numpy as np

from sim import vring
from sim.agents import (
    H_NOTICE,
    K_IRQ_INJECT,
    K_WORKER_COMPLETE,
    K_WORKER_LOG,
    K_WORKER_POP,
    N_RESET,
    wake,
)
from sim.jit import kernel
from sim.layout import EVENT_NONE, EVENT_TRANSPORT_RESET, VQ_CONTROL, VQ_EVENT
from sim.memory import take_cycles
from sim.se_cmd import X_HEAD, X_LOGGED, X_NEXT, X_QUEUE, X_ROW, X_TAG
from sim.vhost import control_queue as vhost_control
from sim.vhost import log as vhost_log
from sim.vhost import scsi as vhost_scsi
from sim.vhost.completions import (
    carry,
    drop,
    give_back,
    log_command,
    log_used,
    put_tag,
    signal_wanted,
)
from sim.vhost.fields import (
    B_BATCH,
    B_CORE,
    B_LOG,
    COMPLETION_WORK,
    Q_BACKEND,
    Q_BUFFERS,
    Q_COMPLETIONS,
    Q_DEVICE,
    Q_INDEX,
    Q_IRQ_SLOT,
    Q_LOG_ALL,
    Q_SIGNALS,
    Q_SIGNALS_SUPPRESSED,
    Q_TAG_FREE,
    Q_UNTOLD,
    Q_VHOST,
    Q_WORKER,
    u64,
)
from sim.vhost.worker import after_work, count_in, count_out, queue_vq_work, unlock


@kernel
def is_silent(st, q, now):
    """Does a kick of this queue end here? Before Linux 4.20 that of the control queue did."""
    s = u64(st[q + Q_VHOST])
    if st[q + Q_INDEX] == VQ_CONTROL:
        return st[s + vhost_scsi.S_BUGS] & vhost_scsi.CONTROL_SILENT != 0
    if st[s + vhost_scsi.S_EVENTS_MISSED]:  # vhost_scsi_evt_handle_kick()
        tell_event(st, s, q, EVENT_NONE, 0, 0, now)
    return True


@kernel
def _tell(mem, lines, st, q, core, now):
    """vhost_signal() for the one entry that was used just now."""
    if signal_wanted(mem, lines, st, q, core):
        st[q + Q_SIGNALS] += 1
        wake(st, st[q + Q_IRQ_SLOT], now + st[K_IRQ_INJECT])
    else:
        st[q + Q_SIGNALS_SUPPRESSED] += 1


@kernel
def control(mem, lines, st, tr, b, q, x, now):
    """vhost_scsi_ctl_handle_vq(): one request, answered at once or handed to LIO."""
    core, row, head = st[b + B_CORE], u64(st[x + X_ROW]), st[x + X_HEAD]
    s, buffers = u64(st[q + Q_VHOST]), u64(st[q + Q_BUFFERS])
    if st[x + X_TAG] < 0:  # more resets than the ring holds, by a guest that cheats
        drop(st, tr, b, row)
        return st[K_WORKER_POP]
    verdict = vhost_control.receive(mem, lines, st, core, s, buffers, x)
    delay = st[K_WORKER_POP]
    st[x + X_LOGGED] = 0
    if verdict == vhost_control.PENDING:
        st[q + Q_TAG_FREE] -= 1
        count_in(st, q, x)
        if st[b + B_LOG]:
            vhost_log.save(st, s, buffers, x)
        st[H_NOTICE] |= N_RESET
    elif verdict == vhost_control.ANSWERED:
        carry(tr, row)
        delay += give_back(mem, lines, st, tr, q, core, head, 0, row, now)
        _tell(mem, lines, st, q, core, now)
        if st[b + B_LOG]:
            delay += vhost_log.log_buffers(st, s, buffers) * st[K_WORKER_LOG]
    else:
        drop(st, tr, b, row)
    return delay


@kernel
def finish_reset(st, x, now):
    """vhost_scsi_release_cmd() of a LUN reset: the worker of the control queue answers it."""
    q = u64(st[x + X_QUEUE])
    if st[q + Q_WORKER] == 0:  # killed: nobody does
        put_tag(st, q, x)
        count_out(st, x)
        return
    st[x + X_NEXT] = st[q + Q_COMPLETIONS]
    st[q + Q_COMPLETIONS] = np.int64(x)
    queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def tell_event(st, s, q, event, lun, reason, now):
    """vhost_scsi_send_evt(): the worker of the event queue `q` shall tell the guest.

    Events are a list last in first out (llist), as completions are.
    """
    e = vhost_control.send(st, s, event, lun, reason)
    if e >= 0:
        st[u64(e) + vhost_control.E_NEXT] = st[q + Q_COMPLETIONS]
        st[q + Q_COMPLETIONS] = e
        queue_vq_work(st, q, COMPLETION_WORK, now)


@kernel
def plug(st, q, lun, reason, now):
    """Control, vhost_scsi_do_plug(): a LUN has come (reason RESCAN) or goes (REMOVED)."""
    s = u64(st[q + Q_VHOST])
    unchecked = st[s + vhost_scsi.S_BUGS] & vhost_scsi.PLUG_UNCHECKED
    if st[s + vhost_scsi.S_HOTPLUG] and (st[q + Q_BACKEND] or unchecked):
        tell_event(st, s, q, EVENT_TRANSPORT_RESET, lun, reason, now)


@kernel
def _used_event(mem, lines, st, b, q, e, now):
    """vhost_scsi_do_evt_work(): one event into a buffer of the guest, told at once."""
    core, s, device = st[b + B_CORE], u64(st[q + Q_VHOST]), u64(st[q + Q_DEVICE])
    delay = 0
    if st[q + Q_BACKEND]:
        head = vhost_control.deliver(mem, lines, st, core, s, device, u64(st[q + Q_BUFFERS]), e)
        if head >= 0:
            visible = vring.add_used(mem, lines, st, device, core, head, 0)
            st[q + Q_UNTOLD] += visible
            delay += log_used(st, q, device, visible)
            _tell(mem, lines, st, q, core, now)
            if st[q + Q_LOG_ALL] and vhost_log.logs_buffers(st, s):
                delay += vhost_log.log_buffers(st, s, u64(st[q + Q_BUFFERS])) * st[K_WORKER_LOG]
    else:
        st[s + vhost_scsi.S_EVENTS_MISSED] = 1
    st[b + B_BATCH] = st[e + vhost_control.E_NEXT]
    vhost_control.drop(st, s, e)
    delay += take_cycles(lines, core)
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    unlock(st, q)
    return after_work(st, b, now, delay)


@kernel
def used_other(mem, lines, st, tr, b, q, x, now):
    """One answer of vhost_scsi_tmf_resp_work(), signalled at once; or an event."""
    if st[q + Q_INDEX] == VQ_EVENT:
        return _used_event(mem, lines, st, b, q, x, now)
    core, row = st[b + B_CORE], u64(st[x + X_ROW])
    vhost_control.finish(mem, lines, st, core, x)
    delay = give_back(mem, lines, st, tr, q, core, st[x + X_HEAD], 0, row, now)
    _tell(mem, lines, st, q, core, now)
    if st[x + X_LOGGED]:
        delay += log_command(st, q, x)
    put_tag(st, q, x)
    count_out(st, x)
    st[b + B_BATCH] = st[x + X_NEXT]
    delay += take_cycles(lines, core)
    if st[b + B_BATCH] >= 0:
        return delay + st[K_WORKER_COMPLETE]
    unlock(st, q)
    return after_work(st, b, now, delay)
