"""Stop, flush and hand over at every boundary of a window, and count what comes of it.

A cell is a policy, the world that it meets (host kernel, EVENT_IDX, load) and the gap between the
standstill of the vCPUs and the loss of the backend. What a cell may show by what is known of the
real thing is named by `hazard`; anything else is a violation.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sim.config import from_effective
from sim.control.stop_policy import KERNEL
from sim.features import version
from sim.migrate import fate
from sim.studies.boundaries import Branch, How, Moment, Window, branch

NOTHING_OPEN = 'nothing open'  # in place of a stage, where the stop finds no request


@dataclass(frozen=True)
class Cell:
    """One row of the table. `gap_ns` from the vCPUs' standstill to the loss of the backend."""

    policy: str
    backend: str
    kernel: str
    event_idx: bool
    gap_ns: int
    load: str

    @property
    def name(self) -> str:
        """For a command line: drain/vhost-scsi/7.2/event_idx/0/three."""
        ring = 'event_idx' if self.event_idx else 'flags'
        return '/'.join((self.policy, self.backend, self.kernel, ring, str(self.gap_ns), self.load))


def hazard(cell: Cell, what: str, fates: Collection[str]) -> str | None:
    """What is known to come of a right policy in the kernel; None: nothing like that is known.

    `what` is one of the `fates` of a boundary.
    """
    if cell.backend != KERNEL:
        return None
    number = version(cell.kernel)
    if what == fate.STRANDED:
        return 'stranded kick'
    if what == fate.STALLED:
        return 'stranded kick, until the next one'
    if what == fate.FAILED_IO and number < (6, 12):
        return 'targets taken away before the queues are stopped'
    if what == fate.STALE and number < (7, 2):
        return 'buffers are not in the dirty log'
    if what == fate.LOST and fate.STALE in fates and number < (6, 12):
        return 'nor is the reply: the guest reads the old one, and takes a failed WRITE for done'
    return None


def search(
    config: dict[str, Any],
    cells: Sequence[Cell],
    hows: Sequence[How],
    steps: Sequence[int],
    skip: int,
    orders: bool,
) -> list[dict[str, Any]]:
    """A row for each cell, all of them of one window; `hows` and `steps` are theirs.

    `config` is effective. A row has the counts of fate.tally(), beside them `orders` (how many of
    the boundaries are of other orders than that of slots), `examples` {fate: name of the moment},
    `stages` {how far open requests were: {worst fate: boundaries}}, `hazards`, `violations` and
    `told`, the life of the first boundary with the worst fate.
    """
    window = Window(from_effective(config), hows[0], skip=skip, steps=max(steps))
    moments = list(window.moments(orders=orders))
    return [
        row_of(cell, ((m, branch(window, m, how)) for m in moments if m.number < count))
        for cell, how, count in zip(cells, hows, steps, strict=True)
    ]


def row_of(cell: Cell, found: Iterable[tuple[Moment, Branch]]) -> dict[str, Any]:
    """What came of all boundaries of a cell; no branch is kept."""
    fates: list[fate.Fate] = []
    first: dict[str, tuple[str, str]] = {}  # by fate: the name of the moment, and its life
    stages: dict[str, dict[str, int]] = {}
    violations: dict[str, str] = {}
    hazards, orders = set(), 0
    for moment, made in found:
        fates.append(made.fate)
        orders += bool(moment.order)
        for name, said in zip(made.fate.fates, made.fate.told, strict=True):
            known = hazard(cell, name, made.fate.fates)
            if known is None:
                violations.setdefault(name, f'{cell.name}:{moment.name}: {said}')
            else:
                hazards.add(known)
            if name not in first:
                first[name] = f'{cell.name}:{moment.name}', tell(cell, moment, made)
        for stage in made.stages or {NOTHING_OPEN: 0}:
            here = stages.setdefault(stage, {})
            here[made.fate.worst] = here.get(made.fate.worst, 0) + 1
    worst = next((name for name in fate.FATES if name in first), None)
    return {
        'policy': cell.policy,
        'backend': cell.backend,
        'kernel': cell.kernel,
        'event_idx': cell.event_idx,
        'gap_ns': cell.gap_ns,
        'load': cell.load,
        **fate.tally(fates),
        'orders': orders,
        'example': first[worst][0] if worst else None,
        'examples': {name: place for name, (place, _) in first.items()},
        'hazards': sorted(hazards),
        'stages': stages,
        'violations': list(violations.values()),
        'told': first[worst][1] if worst else None,
    }


def ablate(config: dict[str, Any], how: How, wanted: str, skip: int, steps: int) -> dict[str, Any]:
    """Leave a mechanism out and look for a boundary at which it is missed.

    `wanted`: how the sentence of its checker begins. Returns what was said, at which moment
    (None where nobody noticed), and how many were tried.
    """
    window = Window(from_effective(config), how, skip=skip, steps=steps)
    tried = 0
    for moment in window.moments():
        tried += 1
        for said in branch(window, moment, how).fate.sentences:
            if said.startswith(wanted):
                return {
                    'caught_by': wanted, 'said': said, 'moment': moment.name, 'tried': tried,
                }  # fmt: skip
    return {'caught_by': None, 'said': None, 'moment': None, 'tried': tried}


def replay(
    config: dict[str, Any], how: How, skip: int, steps: int, name: str
) -> tuple[Moment, Branch]:
    """One boundary once more. Errors: KeyError where the window has none of that name."""
    window = Window(from_effective(config), how, skip=skip, steps=steps)
    moment = window.moment(name)
    return moment, branch(window, moment, how)


def tell(cell: Cell, moment: Moment, made: Branch) -> str:
    """A boundary in words."""
    head = f'{cell.name}:{moment.name}, at cycle {moment.now}: {made.fate.worst}'
    return '\n'.join((head, *made.fate.told, *timeline(moment, made)))


def timeline(moment: Moment, made: Branch) -> Iterator[str]:
    """The hand-over in lines: what control did, and the life of each request that was open.

    Times in us from the boundary.
    """
    hz, there = made.source.cpu_hz, None if made.move is None else made.move.arrived_host

    def us(cycle: int) -> str:
        return f'{(cycle - moment.now) * 1e6 / hz:12.3f}'

    lines: list[tuple[int, str]] = [(moment.now, 'the boundary: the stop begins')]
    for host, where in ((made.source, 'source'), (there, 'destination')):
        for call in [] if host is None else host.control.calls:
            if call.time >= moment.now and call.duration:
                answer = f' = {call.answer}' if call.answer else ''
                index = call.arguments.get('index', call.arguments.get('wwpn', ''))
                lines.append((call.time, f'{where}: {call.name} {index}{answer}'))
    if made.gone_at is not None:
        lines.append((made.gone_at, 'the hand-over'))
    if made.runs_at is not None:
        lines.append((made.runs_at, 'the vCPUs run'))
    lines += fate.lives(made.rows, moment.now)
    for cycle, text in sorted(lines, key=lambda line: line[0]):
        yield f'{us(cycle)}  {text}'
