"""The one kernel decorator.

A kernel is a plain function over plain arrays and integers. It is compiled without reference
counting (`_nrt=False`: kernels create no arrays, and counting is what makes leaf functions slow),
together with the kernels that it calls (sim.parts), and cached on disk. numba's cache does not see
an edit of a callee in another file, so the cache folder carries the hash of all kernels and of what
they import: a stale kernel cannot be called.

`NUMBA_DISABLE_JIT=1` runs the same functions in plain Python, `NUMBA_BOUNDSCHECK=1` checks every
array index. `NUMBA_CACHE_DIR` moves the folder.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, UserProvidedCacheLocator

from sim.parts import EntryCompiler, part_of

HERE = Path(__file__).parent
IMPORTS = re.compile(r'^from (sim(?:\.\w+)*) import (\([^)]*\)|[^\n]*)', re.MULTILINE)


def kernel_sources() -> list[Path]:
    """The files whose text decides what a kernel does: those with kernels, and what they import."""
    found: dict[Path, str] = {}
    waiting = [path for path in HERE.rglob('*.py') if '@kernel' in path.read_text('utf-8')]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = text = path.read_text('utf-8')
        for module, names in IMPORTS.findall(text):
            parts = module.split('.')[1:]
            files = [HERE.joinpath(*parts).with_suffix('.py')] if parts else []
            files += [HERE.joinpath(*parts, f'{name}.py') for name in re.findall(r'\w+', names)]
            waiting += [file for file in files if file.is_file()]
    return sorted(found)


def model_sources() -> list[Path]:
    """The files whose text decides what a run gives: all of the package, and the presets."""
    presets = HERE / 'presets' if (HERE / 'presets').is_dir() else HERE.parent / 'presets'
    return sorted([*HERE.rglob('*.py'), *presets.rglob('*.toml')])


def _cache_root() -> Path:
    """Where compiled kernels may lie: the user's choice, the cache, or a temporary one."""
    chosen = os.environ.get('NUMBA_CACHE_DIR')
    if chosen:
        return Path(chosen)
    root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'vhost-scsi-sim'
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError:
        return Path(tempfile.gettempdir()) / f'vhost-scsi-sim-{os.getuid()}'


def _digest_of(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        name = path.relative_to(HERE.parent).as_posix()
        digest.update(name.encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()


MODEL_DIGEST = _digest_of(model_sources())  # which model this is: results of another one are stale


def _point_numba_at_its_cache() -> Path:
    checks = '-checked' if numba.config.BOUNDSCHECK else ''
    digest = _digest_of(kernel_sources())
    folder = _cache_root() / f'kernels-{digest}-numba{numba.__version__}{checks}'
    numba.config.CACHE_DIR = str(folder)
    return folder


CACHE_DIR = _point_numba_at_its_cache()


class KernelLocator(UserProvidedCacheLocator):  # type: ignore[misc]
    """Where a kernel lies in the cache: by its file's place in the package, not on the machine.

    The folder carries the hash of all kernels, so that two checkouts with the same sources, or an
    installation made anew, share what was compiled once.
    """

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """The locator of a function of this package; None for anybody else's."""
        return super().from_function(py_func, py_file) if HERE in Path(py_file).parents else None

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """The subfolder: that of the file, inside the package."""
        return Path(py_file).parent.relative_to(HERE.parent).as_posix()


numba.config.CACHE_LOCATOR_CLASSES = ','.join(
    ['sim.jit.KernelLocator', *(cls.__name__ for cls in CompileResultCacheImpl._locator_classes)]
)
JIT = not numba.config.DISABLE_JIT


def kernel(
    function: Callable[..., Any] | None = None, *, inline: bool = False, nogil: bool = False
) -> Any:
    """Compile `function` on its first call, cache it on disk, count no references.

    `@kernel(inline=True)` puts the compiled code into every caller: for what has one caller on the
    hot path, or is smaller than a call. A kernel is compiled once for all constants that it is
    called with, where numba would make a version for each of them. `nogil=True` lets Python's other
    threads go on meanwhile: for what takes long.
    """
    if function is None:
        return partial(kernel, inline=inline, nogil=nogil)
    options = {'_nrt': False, 'no_cfunc_wrapper': True}
    entry = numba.njit(cache=True, nogil=nogil, pipeline_class=EntryCompiler, **options)
    compiled = entry(function)
    if JIT:
        part = cache(partial(part_of, function, forceinline=inline, **options))
        compiled.part = part
        compiled.get_call_template = lambda args, kws: part().get_call_template(
            tuple(map(numba.types.unliteral, args)), kws
        )
        compiled.get_overload = lambda signature: part().get_overload(signature)
    return compiled
