"""Write the sample traces in examples/ anew: synthetic, small, and the same at every run.

    python scripts/sample_traces.py

mail-server.iolog (fio iolog, version 3): messages are read in one piece, and delivered as a write
and a sync; deliveries come in bursts. oltp.blkparse.txt (blkparse text of two CPUs): random reads
of 8 KiB database pages, log writes that flush, and checkpoints of adjacent pages that are merged.
"""

import random
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
GIB = 1 << 30


def mail_server() -> str:
    """About 300 requests in 80 ms."""
    draw = random.Random(18)
    file = "/dev/sdb"
    lines = ["fio version 3 iolog", f"0 {file} add", f"0 {file} open"]
    events = []
    clock = 0.0
    while clock < 80_000:
        clock += draw.expovariate(1 / 500)
        if draw.random() < 0.3:  # a burst of deliveries
            for _ in range(draw.randint(2, 6)):
                clock += draw.expovariate(1 / 40)
                message = 4096 * draw.choice([1, 1, 2, 4])
                place = 4096 * draw.randrange(GIB // 4096)
                events.append((clock, "write", 4 * GIB + place, message))
                events.append((clock + 30, "sync", 0, 0))
        else:
            place = 4096 * draw.randrange(4 * GIB // 4096)
            events.append((clock, "read", place, 4096 * draw.choice([1, 2, 4, 8, 16])))
    for time, action, offset, length in sorted(events):
        lines.append(f"{int(time)} {file} {action} {offset} {length}")
    lines.append(f"{int(events[-1][0]) + 200} {file} close")
    return "\n".join(lines) + "\n"


def oltp() -> str:
    """About 400 lines in 20 ms."""
    draw = random.Random(19)
    events = []  # (ns, cpu, pid, action, rwbs, sector, sectors, name, tail of the line)

    def request(at: int, cpu: int, rwbs: str, sector: int, sectors: int, name: str) -> None:
        pid = {"postgres": 2101, "walwriter": 2090, "checkpointer": 2088}[name]
        issued = at + draw.randint(900, 2500)
        done = issued + draw.randint(60_000, 140_000)
        for when, action in ((at, "Q"), (at + 400, "G"), (at + 700, "I"), (issued, "D")):
            events.append((when, cpu, pid, action, rwbs, sector, sectors, f"[{name}]"))
        events.append((done, cpu, 0, "C", rwbs, sector, sectors, "[0]"))

    log = 16_000_000
    clock = 0
    while clock < 20_000_000:
        clock += int(draw.expovariate(1 / 350_000))
        kind = draw.random()
        if kind < 0.7:
            page = 16 * draw.randrange(12_000_000 // 16)
            request(clock, draw.randint(0, 1), "R", page, 16, "postgres")
        elif kind < 0.95:
            request(clock, 0, "FWFS" if draw.random() < 0.3 else "WS", log, 8, "walwriter")
            log += 8
        else:  # a checkpoint: three adjacent pages, of which two are merged into the first
            page = 16 * draw.randrange(12_000_000 // 16)
            for nth in range(3):
                at = clock + 1200 * nth
                events.append((at, 1, 2088, "Q", "W", page + 16 * nth, 16, "[checkpointer]"))
                if nth:
                    extent = (page + 16 * nth, 16, "[checkpointer]")
                    events.append((at + 200, 1, 2088, "M", "W", *extent))
            issued = clock + 6000
            events.append((issued, 1, 2088, "D", "W", page, 48, "[checkpointer]"))
            events.append((issued + 120_000, 1, 0, "C", "W", page, 48, "[0]"))
    lines = []
    counts = [0, 0]
    for when, cpu, pid, action, rwbs, sector, sectors, tail in sorted(events):
        counts[cpu] += 1
        lines.append(
            f"  8,16  {cpu:2} {counts[cpu]:8} {when // 10**9:5}.{when % 10**9:09} {pid:5} "
            f"{action:>2} {rwbs:>3} {sector} + {sectors} {tail}"
        )
    for cpu in (0, 1):
        lines.append(f"CPU{cpu} (8,16):")
        lines.append(f" Reads Queued: {counts[cpu]:11}, {8 * counts[cpu]:7}KiB")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (EXAMPLES / "mail-server.iolog").write_text(mail_server(), encoding="utf-8")
    (EXAMPLES / "oltp.blkparse.txt").write_text(oltp(), encoding="utf-8")
