"""What faults do to a migration: a link that is cut, a cancel, an end of QEMU on either side.

migration/migration.c. Who may act when:

    the big lock     held by the migration thread from the stop of the VM until the stream is out
                     (migration_completion): migrate_cancel waits for it, and where the stop never
                     ends it never acts
    the stream out   without the return path the source is done then, and hears of nothing more;
                     with it, it waits for the destination's word. If the connection ends meanwhile,
                     by a fault or by migrate_cancel, the source takes it for a failure and goes on
                     (migration_iteration_finish), whatever the destination does by then
    log_memory       vhost_log_alloc() takes the log from GLib's g_malloc0(), which aborts QEMU
"""

from collections.abc import Callable
from contextlib import suppress

import simpy

from sim.control.clock import Action
from sim.control.power import Host
from sim.control.vm import VmExitError
from sim.faults import Act
from sim.formats.faults import Fault
from sim.migrate.link import Link
from sim.vhost.ioctl import VhostScsi

KILLED = 'killed by SIGKILL'
RESET = 'Connection reset by peer'


class Mishaps:
    """What has befallen a migration, and the functions that let it (`acts`).

    `half`: the process of the half that is under way. `split` is called where the source goes on
    although the destination may have the VM.
    """

    def __init__(self, link: Link, *, return_path: bool, split: Callable[[str], None]) -> None:
        self.link = link
        self.return_path = return_path
        self.half: simpy.Process | None = None
        self.lock: simpy.Event | None = None  # fires when the big lock is released
        self.stream_out = False
        self.arrived = self.came_back = False
        self.source: Host | None = None
        self.destination: Host | None = None
        self.over_at: int | None = None  # when the source knows of the destination's end
        self.cancelled_at: int | None = None  # when it was asked for, until it has acted
        self.no_log_memory = False
        self.findings: list[str] = []
        self._split = split

    def acts(self) -> dict[str, Act]:
        """By name of the fault."""
        return {
            'link_cut': self._cut,
            'cancel': self._cancel,
            'source_killed': self._kill_source,
            'destination_killed': self._kill_destination,
            'log_memory': self._no_memory,
        }

    # ---- the big lock

    def take_lock(self, host: Host) -> None:
        """The stop of the VM begins."""
        self.lock = host.control.env.event()

    def release_lock(self) -> None:
        """The stream is out, or the migration has failed."""
        if self.lock is not None:
            self.lock.succeed()
            self.lock = None

    # ---- the faults

    def _cut(self, fault: Fault, host: Host) -> Action:
        yield from ()
        self._lose(RESET, host)

    def _cancel(self, fault: Fault, host: Host) -> Action:
        self.cancelled_at = host.control.now
        if self.lock is not None:
            yield self.lock
        self.cancelled_at = None
        if self.link.cut is not None:
            return  # it has failed already
        if self._is_over(host) or (self.stream_out and not self.return_path):
            self.findings.append('migrate_cancel came when the migration was complete: no effect')
            return
        self._lose('migrate_cancel', host, cancelled=True)

    def _lose(self, why: str, host: Host, *, cancelled: bool = False) -> None:
        """The connection is gone."""
        if self.link.cut is None and not self._is_over(host):
            self.link.lose(host.control.now, why, cancelled=cancelled)
            if self.arrived and self.return_path:
                self._split(why)

    def _is_over(self, host: Host) -> bool:
        """Has the source been told what has become of the destination?"""
        return self.over_at is not None and host.control.now >= self.over_at

    def _kill_source(self, fault: Fault, host: Host) -> Action:
        if self.stream_out and not self.came_back:
            self.findings.append('the source was killed when the stream was out: nobody missed it')
            return
        yield from die(self.source or host, self.half)

    def _kill_destination(self, fault: Fault, host: Host) -> Action:
        if self.came_back:
            return  # the source goes on without it
        if self.destination is not None:
            yield from die(self.destination, self.half)
        else:
            self._lose(RESET, host)

    def _no_memory(self, fault: Fault, host: Host) -> Action:
        yield from ()
        self.no_log_memory = True


def die(host: Host, half: simpy.Process | None) -> Action:
    """SIGKILL hits a QEMU: nothing of the guest runs again, and the kernel closes its files.

    The release of /dev/vhost-scsi is a CLEAR_ENDPOINT (vhost_scsi_release).
    """
    if half is not None and half.is_alive:
        half.interrupt(KILLED)
    with suppress(VmExitError):
        host.vm.exit(KILLED)
    if isinstance(host.backend, VhostScsi):
        yield from host.backend.kill_workers()
        host.backend.failing.clear()
        yield from host.backend.clear_endpoint(host.lio.wwpn)
