"""Make a small copy of a capture: leave out every saved buffer that the report does not need.

    python scripts/compact_capture.py CAPTURE COPY

tests/captures was made with it. The ring files are copied as they are; of buffers.bin and of the
list in meta.json what stays is what an inspection of the copy misses when it is gone.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from sim.formats.capture import read_capture
from sim.inspection import inspect

KEPT = (
    "config", "workload", "qemu", "guest_kernel", "device", "layout", "guest_features_hex",
    "guest_features_bits",
)  # fmt: skip
QUEUE_KEYS = (
    "queue-index", "vring-num", "vring-desc", "vring-avail", "vring-used", "last-avail-idx",
    "shadow-avail-idx", "used-idx", "inuse",
)  # fmt: skip


def write(folder: Path, meta: dict[str, Any], rows: list[dict[str, Any]], raw: bytes) -> None:
    """meta.json and buffers.bin with these buffers, one behind the other."""
    placed, content = [], b""
    for row in rows:
        placed.append({key: row[key] for key in ("gpa", "saved", "kind")} | {"off": len(content)})
        content += raw[row["off"] : row["off"] + row["saved"]]
    lines = [f"  {json.dumps(row)}" for row in placed]
    head = json.dumps(meta, indent=1).removesuffix("\n}")
    text = head + ',\n "buffers": [\n' + ",\n".join(lines) + "\n ]\n}\n"
    (folder / "meta.json").write_text(text)
    (folder / "buffers.bin").write_bytes(content)


def report(folder: Path) -> dict[str, Any]:
    """The inspection, without what the name of the folder says."""
    return inspect(read_capture(folder)) | {"capture": ""}


def main() -> int:
    """Copy, then try each buffer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("capture", type=Path)
    parser.add_argument("copy", type=Path)
    options = parser.parse_args()
    whole = json.loads((options.capture / "meta.json").read_text())
    raw = (options.capture / "buffers.bin").read_bytes()
    meta = {key: whole[key] for key in KEPT if key in whole}
    meta["queues"] = [
        {key: row[key] for key in QUEUE_KEYS if key in row} for row in whole["queues"]
    ]
    rows = list({(row["gpa"], row["saved"]): row for row in whole["buffers"]}.values())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "copy"
        shutil.copytree(options.capture, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        wanted = report(options.capture)
        for row in list(rows):
            fewer = [other for other in rows if other is not row]
            write(folder, meta, fewer, raw)
            if report(folder) == wanted:
                rows = fewer
        write(folder, meta, rows, raw)
        assert report(folder) == wanted
        shutil.copytree(folder, options.copy)
    print(f"{options.copy}: {len(rows)} of {len(whole['buffers'])} buffers", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
