"""Where the points of a sweep are simulated: in this process, in processes, on a dask cluster.

A pool calls a function with each of many argument lists and hands back what it returns, in the
order of finishing. All but the first go through joblib. What a pool may lose is a process: a local
one raises BrokenPoolError then, since nobody knows which call it was; a cluster, which has tried
the call on several workers by then, returns a Died for it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import joblib

from sim.errors import ConfigError

Call = tuple[Any, ...]  # the arguments of one call
CONNECT_SECONDS = 30
ORPHAN_SECONDS = 0.5


class BrokenPoolError(Exception):
    """A process died, and every call that was running with it; the text says how."""


@dataclass(frozen=True)
class Died:
    """What a call returns whose workers died."""

    call: Call
    reason: str


class Pool(Protocol):
    """What a sweep needs of it."""

    def warm(self, function: Callable[[], object]) -> None:
        """Call a function once on every machine, before anything else."""

    def map(self, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
        """The results in order of finishing; BrokenPoolError if they are not all to be had."""


class Here:
    """This process, one call after the other; what ends the process ends the sweep."""

    def warm(self, function: Callable[[], object]) -> None:
        """Nothing: the first call does it."""

    def map(self, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
        """See Pool."""
        return (function(*call) for call in calls)


class Processes:
    """`count` processes on this machine (joblib's loky)."""

    def __init__(self, count: int) -> None:
        self.count = max(count, 2)  # joblib would make one this process

    def warm(self, function: Callable[[], object]) -> None:
        """See Pool."""
        list(self.map(function, [()]))

    def map(self, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
        """See Pool."""
        parallel = joblib.Parallel(
            n_jobs=self.count, backend='loky', batch_size=1, return_as='generator_unordered'
        )
        tasks = (joblib.delayed(_not_orphaned)(os.getpid(), function, *call) for call in calls)
        try:
            yield from parallel(tasks)
        except BrokenExecutor as error:
            lines = [line for line in str(error).splitlines() if 'exit codes' in line]
            raise BrokenPoolError(lines[0] if lines else 'a worker process died') from error


class Cluster:
    """The workers of a dask.distributed scheduler (joblib's dask backend)."""

    def __init__(self, scheduler: str) -> None:
        try:
            import distributed
        except ImportError:
            raise ConfigError(
                '--backend dask: dask.distributed is not installed; install the extra "cluster"'
            ) from None
        try:
            self.client = distributed.Client(
                scheduler, timeout=CONNECT_SECONDS, set_as_default=False
            )
            self.client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f'--scheduler {scheduler}: no scheduler with a worker answers there ({text})'
            ) from None

    def warm(self, function: Callable[[], object]) -> None:
        """See Pool."""
        workers = self.client.scheduler_info(n_workers=-1)['workers']
        one_per_host = {about['host']: address for address, about in workers.items()}
        self.client.run(function, workers=list(one_per_host.values()))

    def map(self, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
        """See Pool."""
        with joblib.parallel_config(backend=_dask_backend()(client=self.client)):
            parallel = joblib.Parallel(n_jobs=-1, batch_size=1, return_as='generator_unordered')
            yield from parallel(joblib.delayed(function)(*call) for call in calls)

    def close(self) -> None:
        """Leave the cluster."""
        self.client.close()


def _dask_backend() -> Any:
    """joblib's dask backend, which waits for ever for a call whose workers died; this tells it."""
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)

            def tell(done: Any) -> None:
                error = done.exception()
                if error is not None and callback is not None:
                    (_, call, _), *_ = func.items
                    callback([Died(call, f'{type(error).__name__}: {error}'.splitlines()[0])])

            future.add_done_callback(tell)
            return future

    return Backend


@contextlib.contextmanager
def open_pool(backend: str, jobs: int | None, scheduler: str | None) -> Iterator[Pool]:
    """The pool that the command line asks for. Errors: ConfigError where that makes no sense."""
    if backend not in ('local', 'dask'):
        raise ConfigError(f'--backend {backend}: is none of local, dask')
    if backend == 'local':
        if scheduler is not None:
            raise ConfigError('--scheduler: has no meaning for --backend local; add --backend dask')
        if jobs is not None and jobs < 1:
            raise ConfigError(f'--jobs {jobs}: at least one process is needed')
        yield Here() if jobs in (None, 1) else Processes(jobs or 1)
        return
    if scheduler is None:
        raise ConfigError('--backend dask: say where the scheduler is; add --scheduler ADDRESS')
    if jobs is not None:
        raise ConfigError('--jobs: has no meaning for --backend dask, whose workers all work')
    cluster = Cluster(scheduler)
    try:
        yield cluster
    finally:
        cluster.close()


# ------------------------------------------------------------------------------------- orphans ----


def _not_orphaned(parent: int, function: Callable[..., Any], *call: Any) -> Any:
    """Call, in a worker that ends with the process that it works for, however that ends."""
    if not any(thread.name == 'orphan' for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=(parent,), name='orphan', daemon=True).start()
    return function(*call)


def _end_with(parent: int) -> None:
    """A sweep that is started again must not find workers of the killed one at its points."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)
