"""Run the project's checks one after the other, all of them, and say how long each took.

    python scripts/check.py [group ...]        groups: ruff mypy imports pytest; default: all

The exit code is 0 if every group passed. Standard library only.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET_S = 600  # all of it, on two cores

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
GROUPS = {
    "ruff": ["-m", "ruff", "check", "."],
    "mypy": ["-m", "mypy"],
    "imports": ["-c", LINT_IMPORTS, "--no-logo"],
    "pytest": ["-m", "pytest"],
}


def run(name: str) -> tuple[bool, float]:
    """Run one group; whether it passed, and its seconds."""
    print(f"\n=== {name}", flush=True)
    begin = time.monotonic()
    code = subprocess.run([sys.executable, *GROUPS[name]], cwd=ROOT).returncode
    return code == 0, time.monotonic() - begin


def main() -> int:
    """Run the groups that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("group", nargs="*", help=f"any of: {' '.join(GROUPS)} (default: all)")
    names = parser.parse_args().group or list(GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"unknown group: {' '.join(unknown)}")

    results = {name: run(name) for name in names}

    print("\ngroup      seconds  result")
    for name, (passed, seconds) in results.items():
        print(f"{name:<10} {seconds:7.1f}  {'ok' if passed else 'FAILED'}")
    total = sum(seconds for _, seconds in results.values())
    over = f"  over the budget of {BUDGET_S} s" if total > BUDGET_S else ""
    print(f"{'total':<10} {total:7.1f}{over}", flush=True)
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
