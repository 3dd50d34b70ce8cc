"""Folders that appear whole or not at all, whatever kills the process that writes them.

A folder is written as `.part-...` beside its place and renamed into it. While its process lives, it
holds a lock on a file in there; the kernel drops the lock with the process, so a part whose lock
can be had is a leftover, and whoever finds it may remove it.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sim.errors import ConfigError

PART, NEW, LOCK = '.part-', '.new-', '.lock'
NEW_SECONDS = 3600  # a folder is `.new-` for an instant only, until it has its lock


def check_file(option: str, path: str | Path, endings: Sequence[str] = ()) -> None:
    """Refuse a file that cannot be written, before anything is simulated for it; ConfigError."""
    place = Path(path)
    if endings and place.suffix not in endings:
        raise ConfigError(f'{option} {path}: end the name in {" or ".join(endings)}')
    if not place.parent.is_dir():
        raise ConfigError(f'{option} {path}: its folder does not exist')
    if place.is_dir():
        raise ConfigError(f'{option} {path}: is a folder; give the name of a file')


def check_folder(option: str, path: str | Path) -> None:
    """Refuse what is there and no folder; ConfigError."""
    if Path(path).exists() and not Path(path).is_dir():
        raise ConfigError(f'{option} {path}: is a file; give the name of a folder')


@contextlib.contextmanager
def held_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder in `parent` that is known to be in use until the end, and is then removed."""
    parent.mkdir(parents=True, exist_ok=True)
    tag = f'{name}-{os.getpid()}-{secrets.token_hex(4)}'
    new, part = parent / f'{NEW}{tag}', parent / f'{PART}{tag}'
    new.mkdir()
    with open(new / LOCK, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(part)
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(place: Path, will_do: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A folder to write files into; at the end it becomes `place`, in place of what was there.

    `will_do`: is what stands there by then as good? Then it stays, and nobody who reads it meets
    the moment between two folders. After an exception nothing has happened. Errors: OSError.
    """
    with held_folder(place.parent, place.name) as part:
        yield part
        for path in part.iterdir():
            _sync(path)
        _sync(part)
        with _one_at_a_time(place.parent):
            while place.is_dir():
                if will_do():
                    return
                remove_folder(place)
            part.rename(place)
        (place / LOCK).unlink(missing_ok=True)
        _sync(place.parent)


@contextlib.contextmanager
def _one_at_a_time(parent: Path) -> Iterator[None]:
    """Between looking at what stands at a place and replacing it, nobody else puts theirs there."""
    handle = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # NFS locks files only: there an instant stays open
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def remove_folder(place: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    old = place.with_name(f'{NEW}{place.name}-{os.getpid()}-{secrets.token_hex(4)}')
    with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
        place.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """What was written reaches the disk before the name that says so."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(parent: Path) -> int:
    """Remove the parts in `parent` whose process is gone; how many there were."""
    found = [part for part in parent.glob(f'{PART}*') if not _is_held(part)]
    found += [new for new in parent.glob(f'{NEW}*') if _age(new) > NEW_SECONDS]
    for part in found:
        shutil.rmtree(part, ignore_errors=True)
    return len(found)


def _is_held(part: Path) -> bool:
    try:
        with open(part / LOCK, 'r+') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has just been finished or removed
        return True
    return False


def _age(path: Path) -> float:
    """Seconds since a change; 0 for what is no longer there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
