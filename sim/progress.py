"""How far a sweep is, for people: one line that changes on a terminal, plain lines in a log."""

import sys
import time
from typing import TextIO

from sim.sweep import State

LOG_SECONDS = 30  # without news, say at most so often what is running


class Progress:
    """A watcher of sim.sweep that writes to stderr (or another stream)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.said = time.monotonic()

    def __call__(self, state: State) -> None:
        """Say what has happened, and on a terminal how things stand."""
        if state.news:
            self._write(f'  {state.done}/{state.total}  {state.news}')
        elif self.terminal:
            self._write('', status=status_of(state))
        elif (state.running or state.warming) and time.monotonic() - self.said > LOG_SECONDS:
            self._write(f'  {status_of(state)}')

    def _write(self, line: str, status: str = '') -> None:
        self.said = time.monotonic()
        before = '\r\x1b[K' if self.terminal else ''
        text = f'{before}{line}\n' if line else f'{before}  {status}'
        self.stream.write(text)
        self.stream.flush()

    def close(self) -> None:
        """Take away the line that changes."""
        if self.terminal:
            self.stream.write('\r\x1b[K')
            self.stream.flush()


def status_of(state: State) -> str:
    """'12 of 40 points done, 1 failed, 28 left, 2 running, the slowest for 83 s: iodepth=256'."""
    parts = [f'{state.done} of {state.total} points done']
    parts += [f'{state.failed} failed'] if state.failed else []
    parts.append(f'{state.total - state.done} left')
    if state.warming:
        parts.append('compiling the model')
    elif state.running:
        label, seconds = state.running[0]
        parts.append(f'{len(state.running)} running, the slowest for {seconds:.0f} s: {label}')
    return ', '.join(parts)
