"""Write docs/reference/hostile.md: run every case of tests/hostile_cases.py and say what came out.

Without --write the page is printed.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "hostile.md"
sys.path.insert(0, str(ROOT))

from sim.ring.verdicts import TABLE  # noqa: E402
from tests import hostile_cases as cases  # noqa: E402

HEAD = """# Hostile rings

What the ring does with memory that the other side has filled with nonsense: never a crash, an
endless loop or an access outside the ring, but a *verdict* with a name and a counter, and the
reaction of the code that it stands for. This page is written by `python scripts/hostile_table.py
--write` from the cases that the tests run (`tests/hostile_cases.py`); a test compares the two.

- **stuck**: the kernel's vhost (`vq_err`) answers with an errno; last_avail stays, so the queue is
  stuck on this head until it is reset.
- **broken**: QEMU (`virtio_error`) declares the device broken and takes nothing any more; with
  VERSION_1 it raises DEVICE_NEEDS_RESET (64) in the status register.
- **silent**: the queue is refused when a device is attached to it and does nothing at all.
- **ring broken**: the Linux driver (`BAD_RING`) gets nothing from the ring any more; `add` answers
  EIO.
- **taken**: the real code accepts it, and so does ours; the buffers that it sees are counted.

Clauses are section titles of the virtio specification. What a real device does is read from Linux
(drivers/vhost/vhost.c, drivers/virtio/virtio_ring.c) and QEMU (hw/virtio/virtio.c). The kernel's
vhost has no packed ring: there the algorithm and the reactions are QEMU's under both personalities.

What differs from the real code: a buffer id beyond the ring is refused (QEMU gives it back as it
came; here ids index tables), a table of no bytes is refused before an entry is read, and an
available index that ran away stays refused (vhost as of 6.12 keeps it in its cache after the error
and goes on with it at the next kick; a fix posted in March 2026 does not).

Memory may also change between any two reads. Every field is then whatever the last read of it said:
`tests/fuzz_rings.py --lies` lets each load answer at random and finds the same verdicts.
"""


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---" for _ in titles], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def device_rows(packed: bool) -> list[list[str]]:
    """The device's cases of one ring, with what came out."""
    rows = []
    for case in cases.PACKED_DEVICE if packed else cases.DEVICE:
        ours = [cases.outcome(case, who, packed) for who in cases.PERSONALITIES.values()]
        real = [case.qemu, ours[1]] if packed else [case.vhost, ours[0], case.qemu, ours[1]]
        rows.append([case.name, case.clause, *real])
    return rows


def page() -> str:
    """The whole page."""
    split = ["case", "clause", "vhost", "ours as vhost", "QEMU", "ours as QEMU"]
    packed = ["case", "clause", "QEMU", "ours"]
    attach = [
        [
            case.name,
            case.clause,
            case.vhost,
            case.qemu,
            cases.attach_outcome(case, cases.KERNEL_VHOST),
        ]
        for case in cases.ATTACH
    ]
    answers = [
        [answer.name, answer.clause, answer.linux, cases.answer_outcome(answer)]
        for answer in cases.DRIVER
    ]
    verdicts = [
        [
            str(verdict.number),
            verdict.name,
            verdict.meaning,
            verdict.errno_name or "-",
            verdict.kernel or "-",
            verdict.qemu or "-",
            verdict.driver or "-",
        ]
        for verdict in TABLE
    ]
    return "\n".join(
        [
            HEAD,
            "## A device facing a hostile driver: split ring of 8\n",
            table(split, device_rows(packed=False)),
            "## A device facing a hostile driver: packed ring of 8\n",
            table(packed, device_rows(packed=True)),
            "## A ring that cannot be\n",
            table(["case", "clause", "vhost", "QEMU", "ours"], attach),
            "## A driver facing a hostile device\n",
            "Two chains are out, with the tokens 0 and 1.\n",
            table(["case", "clause", "Linux", "ours: tokens that come back, then"], answers),
            "## Verdicts\n",
            "`sim.ring.verdicts` reads the last one and the counters from a ring's state.\n",
            table(["#", "verdict", "meaning", "errno", "vhost", "QEMU", "driver"], verdicts),
        ]
    )


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
