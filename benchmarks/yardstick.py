"""Builds and calls the C++ yardstick (yardstick.cpp); nothing where there is no g++."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name('yardstick.cpp')

Run = Callable[[int, int, int, int, int], tuple[int, float]]


def build() -> Run | None:
    """A function (number_ios, iodepth, lanes, service_cycles, seed) -> (events, CPU seconds)."""
    compiler = shutil.which('g++')
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix='yardstick-')
    library = Path(folder) / 'yardstick.so'
    command = [compiler, '-O2', '-std=c++17', '-shared', '-fPIC', '-o', str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(library)).yardstick
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_int64] * 5 + [ctypes.POINTER(ctypes.c_int64)]
    shutil.rmtree(folder)

    def run(
        number_ios: int, iodepth: int, lanes: int, service_cycles: int, seed: int
    ) -> tuple[int, float]:
        out = (ctypes.c_int64 * 2)()
        began = time.process_time()
        events = function(number_ios, iodepth, lanes, service_cycles, seed, out)
        return events, time.process_time() - began

    return run
