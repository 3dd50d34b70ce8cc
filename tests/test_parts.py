"""sim.parts: a part is kept as bitcode, is found by other processes, and optimised in entries."""

import json
import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent

# A process calls a kernel that calls another: what it answers, whether it has compiled the part or
# found it in the cache, and whether there is machine code of the part alone.
ASK = """
import json
import numpy as np
from sim import agents
st = np.zeros(2000, np.int64)
st[agents.H_SLOTS], st[agents.H_DUE] = 60, 200
answer = int(agents.top_of_calendar(st))
part = agents.padded.part()
code = [cres.library.get_pointer_to_function(cres.fndesc.llvm_func_name)
        for cres in part.overloads.values()]
compiled, found = sum(part._cache_misses.values()), sum(part._cache_hits.values())
print(json.dumps([answer, compiled, found, any(code)]))
"""
TOP_OF_60 = 200 + 64  # 60 entries in eights; the eight words above them are the top


def ask(cache):
    plain = ('NUMBA_DISABLE_JIT', 'NUMBA_BOUNDSCHECK')
    environment = {k: v for k, v in os.environ.items() if k not in plain}
    done = subprocess.run(
        [sys.executable, '-c', ASK],
        cwd=TOP,
        env=environment | {'NUMBA_CACHE_DIR': str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_entry_takes_in_what_another_process_has_compiled(tmp_path):
    assert ask(tmp_path) == [TOP_OF_60, 1, 0, False]
    assert ask(tmp_path) == [TOP_OF_60, 0, 0, False]  # the entry has all it needs
    entries = list(tmp_path.rglob('agents.top_of_calendar-*'))
    assert entries
    for path in entries:
        path.unlink()
    assert ask(tmp_path) == [TOP_OF_60, 0, 1, False]


def test_two_processes_that_compile_at_once_make_parts_that_fit_together(tmp_path):
    """A part names those that it calls; a number of this process in the name would not be found."""
    names = []
    for number in range(2):
        cache = tmp_path / str(number)
        before = 'import numba\nnumba.njit(lambda x: x)(1)\n' * number  # uses up numba's numbers
        done = subprocess.run(
            [sys.executable, '-c', before + NAMES],
            cwd=TOP,
            env=os.environ | {'NUMBA_CACHE_DIR': str(cache), 'NUMBA_DISABLE_JIT': '0'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        names.append(done.stdout)
    assert names[0] == names[1] != ''


NAMES = """
import numpy as np
from sim import agents
part = agents.padded.part()
part.compile('uint64(uint64)')
print([cres.fndesc.llvm_func_name for cres in part.overloads.values()])
"""
