"""Says on a terminal that kernels are being compiled: a first run would look as if it hung."""

import sys

from numba.core import event

NOTE = 'note: compiling the model, once for these sources; about a minute'


class Notice(event.Listener):  # type: ignore[misc]
    """Prints one line when numba compiles something that its cache does not have."""

    def __init__(self) -> None:
        self.listens = self.told = False

    def on_start(self, event: object) -> None:
        """A compilation begins."""
        if not self.told:
            self.told = True
            print(NOTE, file=sys.stderr, flush=True)

    def on_end(self, event: object) -> None:
        """A compilation has ended."""


NOTICE = Notice()


def tell_on_a_terminal() -> None:
    """From now on, once per process, and only where somebody is watching."""
    if not NOTICE.listens and sys.stderr.isatty():
        NOTICE.listens = True
        event.register('numba:compile', NOTICE)
