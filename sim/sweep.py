"""Many runs: each under its own id, finished points kept, the next start goes on from them.

A sweep is "run the ids that are missing". A point is a folder that appears whole or not at all, so
a sweep that is killed, at whatever moment, loses what was running and nothing else. A point that
fails, or takes its process with it, is reported with its config and seed, and the others go on.
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.config import Config, load
from sim.errors import ConfigError, UnfinishedError
from sim.folders import LOCK, held_folder, remove_leftovers
from sim.formats.values import word
from sim.jit import MODEL_DIGEST
from sim.points import (
    Failure,
    forget_failure,
    is_finished,
    load_latencies,
    load_report,
    load_requests,
    save_failure,
    save_files,
)
from sim.pools import BrokenPoolError, Died, Pool, open_pool
from sim.replicate import simulate
from sim.run import run

__all__ = [
    'Outcome',
    'State',
    'UnfinishedError',
    'is_finished',
    'load_latencies',
    'load_report',
    'load_requests',
    'run_points',
    'sweep',
]

TICK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a sweep is. `running`: labels and seconds of the points that are being simulated,
    longest first. `warming`: kernels are being compiled or loaded. `news`: what has just happened,
    empty if it is only time that passed.
    """

    total: int
    done: int = 0
    failed: int = 0
    running: tuple[tuple[str, float], ...] = ()
    warming: bool = False
    news: str = ''


Watch = Callable[[State], None]


@dataclass(frozen=True)
class Outcome:
    """Where each point lies, None if it has not been finished; what failed; another shard's."""

    places: list[Path | None]
    failures: list[Failure] = field(default_factory=list)
    left_out: int = 0


def sweep(
    configs: Sequence[Config], folder: str | Path, *, watch: Watch | None = None, **how: Any
) -> list[Path]:
    """Run every config into `folder`; results in the order of `configs`.

    `how` is as in run_points(). Raises UnfinishedError, after all the others are done, where one is
    not there; a point whose checkers found something is.
    """
    outcome = run_points(configs, folder, watch=watch, **how)
    places = [place for place in outcome.places if place is not None]
    if len(places) < len(configs):
        raise UnfinishedError(outcome)
    return places


def run_points(
    configs: Sequence[Config],
    folder: str | Path,
    *,
    jobs: int | None = None,
    backend: str = 'local',
    scheduler: str | None = None,
    shard: str | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run the configs that are not there yet; whatever happens to one, the others are run.

    `jobs` processes run at once (one: this process), or the workers of the dask `scheduler`.
    `shard` 'i/n' runs every n-th config only, beginning with the i-th. `watch` is told twice a
    second, and whenever a point is done. Errors: ConfigError where the folder cannot be written or
    the arguments make no sense.
    """
    root = Path(folder)
    mine = shard_of(configs, shard)
    _make_writable(root)
    labels = dict(zip([c.id for c in configs], labels_of(configs), strict=True))
    points = {config.id: config for config in mine}
    missing = {name: c for name, c in points.items() if not is_finished(root / name)}
    failures: list[Failure] = []
    with open_pool(backend, jobs, scheduler) as pool, held_folder(root, 'running') as marks:
        desk = _Desk(root, marks, labels, len(points), watch or (lambda state: None))
        for name in points.keys() - missing.keys():
            failures += desk.settle(points[name], None)
        desk.tell('' if len(missing) == len(points) else 'already there')
        with desk.ticking():
            if missing:
                desk.warming = True
                with contextlib.suppress(BrokenPoolError):  # if it matters, the points will tell
                    pool.warm(warm)
                desk.warming = False
            for done in _all_of(missing, root.resolve(), marks.resolve(), pool):
                failures += desk.settle(missing[done.name], done)
    remove_leftovers(root)  # of a sweep that was still dying when this one began
    places = [root / c.id if is_finished(root / c.id) else None for c in configs]
    order = {c.id: place for place, c in enumerate(configs)}
    failures.sort(key=lambda failure: order[failure.place.name])
    return Outcome(places, failures, len({c.id for c in configs} - points.keys()))


def shard_of(configs: Sequence[Config], shard: str | None) -> Sequence[Config]:
    """The configs of one shard, '3/8': the 3rd, the 11th, ... of all."""
    if shard is None:
        return configs
    number, slash, count = shard.partition('/')
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f'--shard {shard}: write i/n with i from 1 to n, as in 3/8')
    return configs[int(number) - 1 :: int(count)]


def _make_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / '.writable').touch()
        (root / '.writable').unlink(missing_ok=True)
        remove_leftovers(root)
    except OSError as error:
        raise ConfigError(
            f'{root}: cannot write results ({error.strerror}); choose another --out'
        ) from error


def warm() -> None:
    """Compile the kernels, or load them, before many processes want to at the same time."""
    run(load(workload={'number_ios': 4}))


# ------------------------------------------------------------------------------------- a point ----


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a worker answers: the point is on disk, or here as `files`, or has failed."""

    name: str
    seconds: float = 0.0
    failure: str = ''
    trace: str = ''
    files: Mapping[str, bytes] | None = None


def _point(config: Config, root: Path, marks: Path, model: str) -> Done:
    """In a worker: simulate one config; its results go to disk if this is the sweep's disk."""
    name, began = config.id, time.perf_counter()
    if model != MODEL_DIGEST:
        return Done(name=name, failure='the worker has another version of the simulator')
    at_home = (marks / LOCK).exists()
    files = None
    try:
        if at_home:
            (marks / name).touch()
            if not is_finished(root / name):
                save_files(root, config, simulate(config).files())
        else:
            files = simulate(config).files()
    except Exception as error:
        text = ' '.join(f'{type(error).__name__}: {error}'.split())
        return Done(name=name, failure=text, trace=traceback.format_exc())
    finally:
        if at_home:
            (marks / name).unlink(missing_ok=True)
    return Done(name=name, seconds=time.perf_counter() - began, files=files)


def _all_of(missing: Mapping[str, Config], root: Path, marks: Path, pool: Pool) -> Iterator[Done]:
    """Every point once, in the order of finishing.

    When a process dies, its pool dies with it. The points that were running are then run again one
    at a time: the one that kills its process a second time is the one that failed.
    """
    left = dict(missing)
    suspects: list[str] = []
    while left:
        names = [suspects.pop(0)] if suspects else list(left)
        try:
            for done in pool.map(_point, [(left[n], root, marks, MODEL_DIGEST) for n in names]):
                if isinstance(done, Died):
                    name, failure = done.call[0].id, f'its worker died ({done.reason})'
                    done = Done(name=name, failure=failure)
                del left[done.name]
                yield done
        except BrokenPoolError as error:
            marked = [path.name for path in marks.iterdir() if path.name in left]
            for name in marked:
                (marks / name).unlink(missing_ok=True)
            for name in [name for name in names if name in left and is_finished(root / name)]:
                del left[name]
                yield Done(name=name)
            if len(names) == 1 and names[0] in left:
                del left[names[0]]
                yield Done(name=names[0], failure=f'its worker died ({error})')
            suspects = suspects or [name for name in marked if name in left] or list(left)


class _Desk:
    """Keeps the books of a sweep: files results and failures, and tells the watcher."""

    def __init__(
        self, root: Path, marks: Path, labels: Mapping[str, str], total: int, watch: Watch
    ) -> None:
        self.root, self.marks, self.labels, self.total, self.watch = (
            root, marks, labels, total, watch
        )  # fmt: skip
        self.done = self.failed = 0
        self.warming = False
        self.lock = threading.Lock()
        self.over = threading.Event()

    def settle(self, config: Config, done: Done | None) -> list[Failure]:
        """File what became of a point (None: it was there already); its failure, if it is one."""
        label = self.labels[config.id]
        found: list[Failure] = []
        if done is not None and done.failure:
            found = [save_failure(self.root, config, label, done.failure, done.trace)]
        else:
            if done is not None and done.files is not None:
                save_files(self.root, config, dict(done.files))
            forget_failure(self.root, config)
            for text in load_report(self.root / config.id)['violations'][:1]:
                found = [
                    Failure(
                        label=label,
                        message=f'violation: {text}',
                        seed=config.run.seed,
                        place=self.root / config.id,
                    )
                ]
        self.done += 1
        self.failed += bool(found)
        if done is not None:
            took = f'{label} in {done.seconds:.1f} s'
            self.tell(f'{label}: {found[0].message}' if found else took)
        return found

    def tell(self, news: str = '') -> None:
        """Tell the watcher how things stand."""
        running = []
        for path in self.marks.iterdir():
            try:
                running.append((self.labels[path.name], time.time() - path.stat().st_mtime))
            except (KeyError, OSError):  # the lock, or done in this instant
                continue
        running.sort(key=lambda point: -point[1])
        with self.lock:
            self.watch(
                State(
                    total=self.total,
                    done=self.done,
                    failed=self.failed,
                    running=tuple(running),
                    warming=self.warming,
                    news=news,
                )
            )

    def ticking(self) -> '_Desk':
        """A context in which the watcher is told from time to time."""
        return self

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self._tick, daemon=True)
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.thread.join()

    def _tick(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            self.tell()


def labels_of(configs: Sequence[Config]) -> list[str]:
    """What tells each config from the others: 'iodepth=4 event_idx=on'; the id if nothing does."""
    flat = [dict(_flat('', config.effective())) for config in configs]
    names = [name for table in flat for name in table]
    varied = [
        name for name in dict.fromkeys(names) if len({str(table.get(name)) for table in flat}) > 1
    ]
    short = {name: name.rpartition('.')[2] for name in varied}
    return [
        ' '.join(f'{short[name]}={word(table[name])}' for name in varied if name in table)
        or config.id
        for config, table in zip(configs, flat, strict=True)
    ]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f'{prefix}.{key}' if prefix else str(key), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f'{prefix}.{number}', inner)
    else:
        yield prefix, value
