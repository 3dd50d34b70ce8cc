"""The command line, a file per command: add() declares its options, main() runs it.

The files import nothing heavy at their top, so that --help is quick; main() imports what it needs.
"""

import os
import sys


def without_compiling() -> None:
    """For what is over long before its kernels would be compiled.

    Not where numba is loaded already: it would be too late for this process, and would only slow
    down the processes that it starts.
    """
    if 'numba' not in sys.modules:
        os.environ.setdefault('NUMBA_DISABLE_JIT', '1')
