"""A disk written in Python: see docs/howto/disk-in-python.md."""


def elevator(port):
    """One command at a time, always the nearest next one upwards; 20 us and the way there."""
    at, waiting = 0, []
    while True:
        waiting.append((yield port.get()))
        while (more := port.try_get()) is not None:
            waiting.append(more)
        while waiting:
            above = [c for c in waiting if c.lba >= at]
            command = min(above or waiting, key=lambda c: c.lba)
            waiting.remove(command)
            way_ns = abs(command.lba - at) // 1000
            yield port.env.timeout(port.cycles(20_000 + way_ns))
            port.done(command)
            at = command.lba + command.blocks
            while (more := port.try_get()) is not None:
                waiting.append(more)
