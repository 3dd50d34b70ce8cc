"""The link between two hosts: bandwidth, latency, and the moment at which it is cut."""

from dataclasses import dataclass

import simpy

from sim.control.clock import Action, Control


class LinkError(Exception):
    """The connection is lost; the message is what QEMU says of its file."""


@dataclass
class Link:
    """`bandwidth` in bytes per second, `latency` one way in cycles.

    `cut`: the cycle since which there is no connection, `cancelled` by whom QEMU obeys.
    """

    control: Control
    bandwidth: int
    latency: int
    cpu_hz: int
    cut: int | None = None
    why: str = ''
    cancelled: bool = False
    sent: int = 0  # bytes
    broken: simpy.Event | None = None  # fires when it is cut; only where that may happen

    def cycles(self, size: int) -> int:
        """How long `size` bytes take."""
        return -(-size * self.cpu_hz // self.bandwidth)

    def send(self, size: int, work: int = 0) -> Action:
        """`size` bytes go out, which take the thread that writes them `work` cycles of its own: the
        socket's buffer lets both go on at a time, and the slower one decides.

        Errors: LinkError where the link is cut before they have gone.
        """
        self.check()
        gone = self.control.env.timeout(max(self.cycles(size), work))
        yield gone if self.broken is None else gone | self.broken
        self.check()
        self.sent += size

    def arrive(self) -> Action:
        """The last byte reaches the other side. Errors: LinkError where it does not."""
        yield self.control.env.timeout(self.latency)
        self.check()

    def may_break(self) -> None:
        """Somebody means to cut it: whatever it carries is lost at once then."""
        self.broken = self.control.env.event()

    def lose(self, now: int, why: str, *, cancelled: bool = False) -> None:
        """The connection is gone."""
        self.cut, self.why, self.cancelled = now, why, cancelled
        if self.broken is not None and not self.broken.triggered:
            self.broken.succeed()

    def check(self) -> None:
        """Is the connection still there? Errors: LinkError."""
        if self.cut is not None:
            lost = 'Unable to write to socket: '
            raise LinkError(self.why if self.cancelled else lost + self.why)
