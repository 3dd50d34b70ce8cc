"""Run the project's checks one after the other, all of them, and say how long each took.

    python scripts/check.py [group ...]     groups: ruff mypy imports kernels pytest; default: all

`kernels` compiles what every run needs, beside the groups before it. `pytest` runs the tests on all
processors (at most 4); without `kernels` each of them would compile for itself. The exit code is 0
if every group passed. Standard library only.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET_S = 600  # all of it, on two cores
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
# Tests in several processes: one that has none left takes half of what another has left.
SPREAD = ["--dist", "worksteal", "-n", str(min(PROCESSORS or 1, 4))]
GROUPS = {
    "ruff": ["-m", "ruff", "check", "."],
    "mypy": ["-m", "mypy"],
    "imports": ["-c", LINT_IMPORTS, "--no-logo"],
    "kernels": ["-c", "from sim.sweep import warm; warm()"],
    "pytest": ["-m", "pytest", "--durations", "25", *SPREAD],
}
BESIDE = ("kernels",)  # begun at once, told when its turn comes: it needs one processor


def begin(name: str) -> subprocess.Popen:
    """Begin a group; what one says that runs beside others is kept until its turn."""
    command = [sys.executable, *GROUPS[name]]
    if name in BESIDE:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return subprocess.Popen(command, cwd=ROOT)


def main() -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="*", help=f"any of: {' '.join(GROUPS)} (default: all)")
    names = parser.parse_args().group or list(GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"unknown group: {' '.join(unknown)}")

    began = time.monotonic()
    beside = {name: begin(name) for name in names if name in BESIDE}
    results = {}
    for name in names:
        print(f"\n=== {name}", flush=True)
        since = time.monotonic()
        process = beside.get(name) or begin(name)
        told, _ = process.communicate()
        print(told or "", end="", flush=True)
        results[name] = process.returncode == 0, time.monotonic() - since
    total = time.monotonic() - began

    print("\ngroup      seconds  result")
    for name, (passed, seconds) in results.items():
        note = "  (what was left when the groups before it had ended)" if name in beside else ""
        print(f"{name:<10} {seconds:7.1f}  {'ok' if passed else 'FAILED'}{note}")
    over = f"  over the budget of {BUDGET_S} s" if total > BUDGET_S else ""
    print(f"{'total':<10} {total:7.1f}{over}", flush=True)
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
