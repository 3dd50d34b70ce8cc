"""How far a sweep is, for people: a bar that changes on a terminal, plain lines in a log."""

import shutil
import sys
import time
from typing import TextIO

from sim.sweep import State

LOG_SECONDS = 30  # without news, say at most so often what is running
BAR = 20  # characters


class Progress:
    """A watcher of sim.sweep that writes to stderr (or another stream)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.said = time.monotonic()
        self.failed = 0

    def __call__(self, state: State) -> None:
        """Say what has happened, on a terminal how things stand; there only failures stay."""
        failed, self.failed = state.failed > self.failed, state.failed
        if state.news and (failed or not self.terminal):
            self._write(f'  {state.done}/{state.total}  {state.news}')
        if self.terminal:
            self._write('', status=f'{bar_of(state)} {status_of(state)}')
        elif not state.news and (state.running or state.warming) and self._silent_for_long():
            self._write(f'  {status_of(state)}')

    def _silent_for_long(self) -> bool:
        return time.monotonic() - self.said > LOG_SECONDS

    def _write(self, line: str, status: str = '') -> None:
        self.said = time.monotonic()
        before = '\r\x1b[K' if self.terminal else ''
        room = shutil.get_terminal_size().columns - 3
        text = f'{before}{line}\n' if line else f'{before}  {status[:room]}'
        self.stream.write(text)
        self.stream.flush()

    def close(self) -> None:
        """Take away the line that changes."""
        if self.terminal:
            self.stream.write('\r\x1b[K')
            self.stream.flush()


def bar_of(state: State) -> str:
    """'[########------------]': the share that is done."""
    full = BAR * state.done // max(state.total, 1)
    return f'[{"#" * full}{"-" * (BAR - full)}]'


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
