"""The link between two hosts: bandwidth, latency, and the moment at which it is cut."""

from dataclasses import dataclass

from sim.control.clock import Action, Control


class LinkError(Exception):
    """The connection is lost; the message is what QEMU says of its file."""


@dataclass
class Link:
    """`bandwidth` in bytes per second, `latency` one way in cycles; `cut` at a cycle, if ever."""

    control: Control
    bandwidth: int
    latency: int
    cpu_hz: int
    cut: int | None = None
    sent: int = 0  # bytes

    def cycles(self, size: int) -> int:
        """How long `size` bytes take."""
        return -(-size * self.cpu_hz // self.bandwidth)

    def send(self, size: int) -> Action:
        """`size` bytes go out. Errors: LinkError where the link is cut before they have gone."""
        now, end = self.control.now, self.control.now + self.cycles(size)
        if self.cut is not None and self.cut <= end:
            yield self.control.env.timeout(max(0, self.cut - now))
            self.fail()
        yield self.control.env.timeout(end - now)
        self.sent += size

    def arrive(self) -> Action:
        """The last byte reaches the other side. Errors: LinkError."""
        now, end = self.control.now, self.control.now + self.latency
        if self.cut is not None and self.cut <= end:
            yield self.control.env.timeout(max(0, self.cut - now))
            self.fail()
        yield self.control.env.timeout(self.latency)

    def fail(self) -> None:
        """The connection is gone."""
        raise LinkError('Unable to write to socket: Connection reset by peer')
