"""Write the generated tables of docs/reference/ and results/ anew, from what they describe.

    python scripts/reference.py

A table stands between a line `<!-- name: generated -->` and a line `<!-- end -->`; what is around
it is written by hand. tests/test_reference.py fails while a table is out of date.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import Field
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sim import features, record  # noqa: E402
from sim.__main__ import command_line  # noqa: E402
from sim.analysis import meanings  # noqa: E402
from sim.formats import cdb, fio  # noqa: E402
from sim.formats import fio_options as output_options  # noqa: E402
from sim.formats.disk_keys import GROUPS, TARGET_KEYS, WBT, kind_keys  # noqa: E402
from sim.formats.disks import disk_presets, load_disk  # noqa: E402
from sim.formats.key import Key  # noqa: E402
from sim.formats.keys import KERNELS, LUN_PLACE, fields_of  # noqa: E402
from sim.studies.scsi_options import parser as scsi_parser  # noqa: E402
from sim.units import format_size, format_time  # noqa: E402


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def feature_bits() -> str:
    """What each bit means and what it does here."""
    return table(
        ("bit", "name", "meaning", "here"),
        ((bit.number, f"`{bit.name}`", bit.meaning, bit.here) for bit in features.BITS.values()),
    )


def feature_offers() -> str:
    """Who offers, lists and acks each bit."""
    return table(
        ("bit", "name", "kernel vhost-scsi", "SPDK", "property: default", "masked", "Linux acks"),
        (
            (
                bit,
                f"`{row.name}`",
                yes(features.VHOST_SCSI_FEATURES >> bit & 1),
                yes(features.SPDK_VHOST_SCSI_FEATURES >> bit & 1),
                properties(bit),
                since(["4.2", "7.2", "9.1"], lambda v: features.masked_by_backend(VHOST, v), bit),
                since(KERNELS, features.linux_accepts, bit),
            )
            for bit, row in features.BITS.items()
        ),
    )


VHOST = "vhost-scsi-pci"


def yes(there: int) -> str:
    """A cell of a yes-or-no column."""
    return "yes" if there else ""


def since(versions: Iterable[str], bits: Callable[[str], int], bit: int) -> str:
    """From which of the versions on the bit is in the set, if ever."""
    versions = list(versions)
    having = [version for version in versions if bits(version) >> bit & 1]
    if not having:
        return ""
    return "yes" if having == versions else f"from {having[0]}"


def properties(bit: int) -> str:
    """The property that sets the bit: its default, by device where they differ."""
    found: dict[str, list[str]] = {}
    name = ""
    for driver in ("vhost-scsi-pci", "vhost-user-scsi-pci", "virtio-scsi-pci"):
        for row in features.properties_of(driver).values():
            if row.bit == bit:
                name = row.name
                text = "on" if row.default else "off"
                if row.since:
                    text += f" (QEMU {row.since[0]}.{row.since[1]})"
                found.setdefault(text, []).append(driver.removesuffix("-pci"))
    if not found:
        return ""
    if len(found) == 1 and len(next(iter(found.values()))) == 3:
        return f"`{name}`: {next(iter(found))}"
    return f"`{name}`: " + "; ".join(f"{', '.join(who)} {text}" for text, who in found.items())


def target_keys() -> str:
    """The keys of [target]: what may stand in them, and which kinds of disk know them."""
    rows = []
    for name, item in fields_of("target").items():
        known = [kind for kind in TARGET_KEYS if name in kind_keys(kind)]
        group = next((group for group in GROUPS if name in group), (name,))
        if name in WBT:
            who = "`host.kernel` 6.1"
        elif group[0] != name:
            who = f"with `{group[0]}`"
        else:
            who = "all" if len(known) in (0, len(TARGET_KEYS)) else ", ".join(known)
        rows.append((f"`{name}`", value_of(item), default_of(item), who, item.metadata["key"].help))
    return table(("key", "value", "default", "kinds", "meaning"), rows)


def show_time(ns: int) -> str:
    """A time; 0 needs no unit."""
    return format_time(ns) if ns else "0"


SHOW = {"size": format_size, "sizes": format_size, "time": show_time, "spread": show_time}
KIND_WORDS = {
    "int": "number",
    "spread": "random time",
    "bool": "on, off",
    "extent": "size or percent",
    "sizes": "size or two",
    "counts": "count or two",
    "percents": "percent or two",
    "bsrange": "range of sizes or two",
    "bssplit": "shares of sizes or two",
    "workers": "number of workers or lists of virtqueues",
    "cpus": "numbers with commas",
    "precision": "such as `p99:0.02`, several with commas",
}


def value_of(item: Field[Any]) -> str:
    """What may stand in a key."""
    key: Key = item.metadata["key"]
    if key.kind == "choice":
        names = [*key.choices, *key.synonyms]
        later = [name for name in key.choices if key.only and name not in key.only]
        now = ", ".join(name for name in names if name not in later)
        return now + (f"; not yet: {', '.join(later)}" if later else "")
    word = KIND_WORDS.get(key.kind, key.kind)
    show = SHOW.get(key.kind, str)
    if key.high < 2**62:
        word += f", {show(key.low)} to {show(key.high)}"
    elif key.low:
        word += f", from {show(key.low)}"
    if key.kind == "bool" and key.only:
        word += f" (only {' '.join('on' if value else 'off' for value in key.only)} so far)"
    return word + (f"; bare: {key.unit}" if key.unit else "")


def default_of(item: Field[Any]) -> str:
    """The default as people write it."""
    kind, value = item.metadata["key"].kind, item.default
    if value is None:
        return "auto" if "auto" in item.metadata["key"].help else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if kind == "spread" else SHOW.get(kind, str)(value)


def scsi_commands() -> str:
    """The commands of the subset: opcode, fields of the CDB, where the data go."""
    rows = []
    for command in cdb.EVERY:
        code = f"{command.opcode:02X}"
        if command.action is not None:
            code += f"/{command.action:02X}"
        used = [field.name for field in command.fields if field.used and field.name != "sa"]
        unused = [field.name for field in command.fields if not field.used]
        data = "-" if command.data == "none" else f"{command.data}, {LENGTHS[command.length]}"
        rows.append((code, command.name, " ".join(used) or "-", " ".join(unused) or "-", data))
    return table(("opcode/SA", "command", "fields", "fields not reported", "data"), rows)


LENGTHS = {
    "blocks": "blocks",
    "bytes": "bytes of the CDB",
    "one block": "one block",
    "two halves": "2 x blocks",
    "8": "8 bytes",
}


def disk_fits() -> str:
    """The largest error of each preset, by operation, metric and role of the points."""
    rows = []
    for name in disk_presets():
        preset = load_disk(name)
        fit = preset.get("fit", {})
        for rw in ("randread", "randwrite"):
            points = [point for point in fit.get("points", ()) if point["rw"] == rw]
            if points or (rw == "randread" and not fit):
                depths = ", ".join(str(point["iodepth"]) for point in points)
                errors = [largest(points, *what) for what in FIT_COLUMNS]
                fitted = len(fit.get("free", ()))
                rows.append((f"`{name}`", preset["grade"], rw, depths, fitted, *errors))
    head = ("preset", "grade", "operation", "depths", "fitted")
    return table((*head, *(f"{metric}, {role}" for metric, role in FIT_COLUMNS)), rows)


FIT_COLUMNS = (
    ("iops", "calibrated"), ("iops", "predicted"), ("mean_us", "predicted"), ("p99_us", "predicted")
)  # fmt: skip


def largest(points: Iterable[dict[str, Any]], metric: str, role: str) -> str:
    """The largest error of a metric in percent."""
    key = f"error_{metric}_percent"
    found = [abs(point[key]) for point in points if point["role"] == role and key in point]
    return f"{max(found):.1f} %" if found else ""


def keys_of(section: str) -> str:
    """Every key of a section: what may stand there, what stands there, what it means."""
    rows = []
    for name, item in (LUN_PLACE if section == "lun" else fields_of(section)).items():
        key: Key = item.metadata["key"]
        also = f" (also `{key.alias}`)" if key.alias else ""
        rows.append((f"`{name}`{also}", value_of(item), default_of(item), key.help))
    return table(("key", "value", "default", "meaning"), rows)


def fio_options() -> str:
    """Every option of fio's that is known: what becomes of it, and what it means here."""
    known = fields_of("workload")
    known["rwmixwrite"] = known["rwmixread"]
    rows = {name: ("honoured", known[name].metadata["key"].help) for name in fio.HONOURED}
    rows |= {name: ("honoured", f"as `{key}`") for name, key in fio.ALIASES.items()}
    rows |= {name: ("honoured: output", text) for name, text in output_options.MEANINGS.items()}
    rows |= {name: ("noted", reason) for name, reason in fio.NOTED.items()}
    rows |= {name: ("refused", reason) for name, reason in fio.NOT_MODELLED.items()}
    rows["direct"] = ("noted", "all I/O is direct; `direct=0` is refused")
    rows["buffered"] = ("noted", "all I/O is direct; `buffered=1` is refused")
    rows["rw"] = ("honoured", rows["rw"][1] + "; trims and `rw=randread:8` are refused")
    lines = ((f"`{name}`", *rows[name]) for name in sorted(rows))
    return table(("option", "here", "meaning, or reason"), lines)


def figures() -> str:
    """What each experiment draws."""
    from experiments.command import experiments

    return table(
        ("figure", "shows", "made anew by"),
        (
            (f"{found.name}/{name}", text, f"`python -m experiments.{found.name}`")
            for found in experiments()
            for name, text in found.figures.items()
        ),
    )


def incidents() -> str:
    """A section for each scenario of record."""
    from experiments.incidents import scenarios

    return "\n\n".join(scenario.section() for scenario in scenarios()) + "\n"


# ----------------------------------------------------------------------------------- results ----


def described(head: str, rows: dict[str, tuple[str, str]]) -> str:
    """Names with unit and meaning."""
    lines = ((f"`{name}`", unit, meaning) for name, (unit, meaning) in rows.items())
    return table((head, "unit", "meaning"), lines)


def report_keys() -> str:
    """What a report has beside its numbers."""
    rows = ((f"`{name}`", meaning) for name, meaning in meanings.REPORT.items())
    return table(("key", "meaning"), rows)


def moments() -> str:
    """The timestamps of a row, the stage that each ends, and who writes it."""
    rows = []
    for index, (name, (when, who)) in enumerate(meanings.MOMENTS.items()):
        stage = f"`{name[2:]}`" if index else ""
        rows.append((f"`{name}`", stage, when, who, ", ".join(written_by(f"R_{name[2:].upper()}"))))
    return table(("timestamp", "ends stage", "when", "agent, state", "written by"), rows)


def facts() -> str:
    """The other words of a row."""
    first = len(record.TIMESTAMPS)
    rows = (
        (index, f"`{name}`", meanings.FACTS[name])
        for index, name in enumerate(record.FACTS, start=first)
    )
    return table(("word", "name", "meaning"), rows)


def written_by(word: str) -> list[str]:
    """The functions of the model that write a word of the trace, as links to their files."""
    return [
        f"[{place.stem}.{function}](../../{place})"
        for place, function, words in writers()
        if word in words
    ]


@cache
def writers() -> list[tuple[Path, str, set[str]]]:
    """The functions that write to the trace, by file, and the names in the places they write to."""
    found = []
    for path in sorted((ROOT / "sim").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "tr[" in text:
            for function in ast.walk(ast.parse(text)):
                if isinstance(function, ast.FunctionDef) and (words := words_written(function)):
                    found.append((path.relative_to(ROOT), function.name, words))
    return found


def words_written(function: ast.FunctionDef) -> set[str]:
    """The last parts of all names in x, wherever tr[x] is assigned to."""
    targets = [n.targets[0] for n in ast.walk(function) if isinstance(n, ast.Assign)]
    return {
        name.id if isinstance(name, ast.Name) else name.attr
        for target in targets
        if isinstance(target, ast.Subscript)
        and ast.unparse(target.value) in ("tr", "machine.tr")
        for name in ast.walk(target.slice)
        if isinstance(name, ast.Name | ast.Attribute)
    }


# ------------------------------------------------------------------------------ command line ----

COMMAND_LINE = "command-line.md"


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, of a command with actions those of its actions."""
    found: dict[str, argparse.ArgumentParser] = {}

    def walk(parser: argparse.ArgumentParser) -> None:
        below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        for action in below:
            for inner in action.choices.values():
                walk(inner)
        if not below:
            words = parser.prog.partition(" ")[2]
            found[words] = scsi_parser() if words == "scsi" else parser

    walk(command_line())
    return found


def command(words: str) -> str:
    """What a command is called with, what it does, and its options."""
    parser = parsers()[words]
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            name = action.option_strings[0] if action.option_strings else ""
            if action.nargs != 0:  # it takes a value
                name = f"{name} {formatter._metavar_formatter(action, action.dest)(1)[0]}".strip()
            rows.append((f"`{name}`", formatter._expand_help(action) if action.help else ""))
    line = f"python -m sim {words}{arguments(parser)}"
    return f"```text\n{line}\n```\n\n{parser.description}\n\n{table(('option', 'meaning'), rows)}"


def arguments(parser: argparse.ArgumentParser) -> str:
    """Of the usage line what must be given, and the positionals; the options are in the table."""
    if parser.usage is not None:
        return parser.usage.removeprefix("%(prog)s")
    parts = []
    formatter = parser._get_formatter()
    for action in parser._actions:
        word = formatter._metavar_formatter(action, action.dest)(1)[0]
        if not action.option_strings:
            parts.append({"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} ..."}.get(
                str(action.nargs), word))  # fmt: skip
        elif action.required:
            parts.append(f"{action.option_strings[0]} {word}")
    return " " + " ".join([*parts, "[option ...]"])


def with_every_command(text: str) -> str:
    """The page of the command line, with a section at its end for each command that has none."""
    for words in parsers():
        if f"<!-- sim {words}: generated -->" not in text:
            text += f"\n## {words}\n\n<!-- sim {words}: generated -->\n<!-- end -->\n"
    return text


TABLES: dict[str, Callable[[], str]] = {
    "figures": figures,
    "incidents": incidents,
    "request columns": partial(described, "column", meanings.REQUESTS),
    "histogram columns": partial(described, "column", meanings.HISTOGRAMS),
    "metrics": partial(described, "metric", meanings.METRICS),
    "report keys": report_keys,
    "timestamps": moments,
    "facts": facts,
    "scsi commands": scsi_commands,
    "disk fits": disk_fits,
    "feature bits": feature_bits,
    "feature offers": feature_offers,
    "target keys": target_keys,
    "fio options": fio_options,
}
SECTION_TABLES = (
    "workload", "guest", "device", "host", "qemu", "run", "migration", "lun", "tmf", "hotplug",
)  # fmt: skip
for section in SECTION_TABLES:
    TABLES[f"{section} keys"] = partial(keys_of, section)
for words in parsers():
    TABLES[f"sim {words}"] = partial(command, words)
BLOCK = re.compile(r"(<!-- ([a-z ]+): generated -->\n).*?\n?(<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """A document with its tables generated anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def page(name: str, text: str) -> str:
    """A page of docs/reference as it should be."""
    return renewed(with_every_command(text) if name == COMMAND_LINE else text)


def main() -> None:
    """Renew every document that has a generated table."""
    for path in [*sorted((ROOT / "docs/reference").glob("*.md")), ROOT / "results/README.md"]:
        text = path.read_text(encoding="utf-8")
        if (new := page(path.name, text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"renewed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
