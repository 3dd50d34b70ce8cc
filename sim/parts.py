"""Kernels that other kernels call: lowered once, optimised and turned into machine code where used.

numba by itself optimises every function and emits machine code for it, then links it into each of
its callers and optimises it there again, with theirs. Most of the model's kernels are called only
by other kernels, ten calls deep. Here such a part stays what numba has lowered it to (LLVM's own
form, tidied function by function), without the wrapper for Python; a kernel that Python calls, an
entry, takes in all parts that it can reach and is optimised as a whole, once.

What is used of numba here is how it names libraries, pipelines and caches inside (numba.core);
constraints.txt pins the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, compile_result


class NoEngine:
    """In place of the code generator where numba would tell machine code its environment."""

    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """There is no machine code yet."""


class Part(JITCodeLibrary):  # type: ignore[misc]
    """The library of one part: its own module, and which parts it calls.

    `parts` is a dict for its order; only the keys count. `own` is what the part may be found by
    again: (module, name, types of arguments).
    """

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.parts: dict[Part, None] = {}
        self.own: tuple[str, str, Any] | None = None
        self._whole: Any = None

    @property
    def codegen(self) -> Any:
        """Where numba says the environment of what it has compiled."""
        return NoEngine

    def add_linking_library(self, library: Any) -> None:
        """This part calls something in `library`."""
        if isinstance(library, Part):
            self.parts[library] = None
        else:
            super().add_linking_library(library)

    def finalize(self) -> None:
        """Take in what is not a part (numba's own functions) as this part's alone."""
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        for function in self._final_module.functions:
            if function.is_declaration:
                continue
            ours = function.linkage == llvm.Linkage.external
            function.linkage = 'linkonce_odr' if ours else 'internal'
        self._final_module.verify()
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """There is no machine code: nobody but a kernel calls a part."""
        return 0

    def module(self) -> Any:
        """The part alone, as LLVM's module."""
        self._ensure_finalized()
        return self._final_module

    def _get_module_for_linking(self) -> Any:
        """The part with all that it can reach: for a function that is not made by sim.jit."""
        if self._whole is None:
            self._whole = self.module().clone()
            for part in reached(self.parts):
                self._whole.link_in(part.module(), preserve=True)
        return self._whole


def reached(parts: Iterable[Part]) -> Iterator[Part]:
    """`parts` and all that these can reach, each once."""
    seen: set[Part] = set()
    waiting = list(parts)
    while waiting:
        part = waiting.pop()
        if part not in seen:
            seen.add(part)
            yield part
            waiting += part.parts


class Entry(JITCodeLibrary):  # type: ignore[misc]
    """The library of a kernel that Python calls: it takes in all parts that it can reach."""

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.parts: dict[Part, None] = {}

    def add_linking_library(self, library: Any) -> None:
        """The entry calls something in `library`."""
        if isinstance(library, Part):
            self.parts[library] = None
        else:
            super().add_linking_library(library)

    def finalize(self) -> None:
        """Link, optimise, emit."""
        for part in reached(self.parts):
            self._final_module.link_in(part.module(), preserve=True)
        super().finalize()

    def _optimize_final_module(self) -> None:
        """Optimise once: numba's cheap round before is there for reference counting."""
        passes, builder = self._codegen._module_pass_manager()
        with self._recorded_timings.record('Module passes', builder):
            passes.run(self._final_module, builder)


class EntryCompiler(Compiler):  # type: ignore[misc]
    """numba's pipeline, with a library of the kind Entry."""

    def compile_extra(self, func: Any) -> Any:
        """Compile the function `func`."""
        self.state.library = Entry(self.state.targetctx.codegen(), func.__qualname__)
        self.state.library.enable_object_caching()
        return super().compile_extra(func)


class PartCompiler(Compiler):  # type: ignore[misc]
    """numba's pipeline, with a library of the kind Part."""

    def compile_extra(self, func: Any) -> Any:
        """Compile the function `func`."""
        library = Part(self.state.targetctx.codegen(), func.__qualname__)
        library.own = func.__module__, func.__qualname__, tuple(self.state.args)
        self.state.library = library
        return super().compile_extra(func)

    def _compile_bytecode(self) -> Any:
        # numba numbers what it compiles, and the number is part of a symbol's name. Parts that two
        # processes have compiled are to fit together, and module, name and types say which it is.
        self.state.func_id.unique_id = 0
        return super()._compile_bytecode()


class PartCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    """How a part lies in the cache: LLVM's bitcode, and which parts it calls."""

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        """Beside the entry of the same function."""
        return 'part-' + super().get_filename_base(fullname, abiflags)

    def reduce(self, cres: Any) -> tuple[Any, ...]:
        """What is stored of a compiled part."""
        library, described = cres.library, cres.fndesc
        described.typemap = described.calltypes = None
        calls = [part.own for part in library.parts]
        bitcode = library.module().as_bitcode()
        return library.own, bitcode, calls, described, cres.environment, cres.signature

    def rebuild(self, target_context: Any, payload: tuple[Any, ...]) -> Any:
        """The compiled part again, with those that it calls."""
        own, bitcode, calls, described, environment, signature = payload
        library = Part(target_context.codegen(), own[1])
        library.own, library._finalized = own, True
        library._final_module = llvm.parse_bitcode(bitcode)
        for module, name, types in calls:
            part = getattr(import_module(module), name).part()
            part.compile(types)
            library.parts[part.overloads[types].library] = None
        return compile_result(
            typing_context=target_context.typing_context,
            target_context=target_context,
            entry_point=target_context.get_executable(library, described, environment),
            signature=signature,
            objectmode=False,
            lifted=(),
            fndesc=described,
            library=library,
            environment=environment,
            reload_init=[],
            metadata=None,
        )


class PartCache(FunctionCache):  # type: ignore[misc]
    """The cache of a part."""

    _impl_class = PartCacheImpl


def part_of(function: Any, **options: Any) -> Any:
    """The dispatcher that kernels call in place of the one of `function` that Python calls.

    `options` are those of numba.njit that decide what the function is compiled to.
    """
    part = numba.njit(no_cpython_wrapper=True, pipeline_class=PartCompiler, **options)(function)
    part._cache = PartCache(function)
    return part
