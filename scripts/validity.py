"""Write docs/validity.md anew: what `sim validate` gives of every target, and which guesses matter.

    python scripts/validity.py            simulate everything (some minutes) and write the page
    python scripts/validity.py --json F   the same from what `sim validate --json` has printed
    python scripts/validity.py --tally    only README's sentence, from the page as it is
    python scripts/validity.py --only T   renew one target alone (again for more), and no guesses

What is written by hand stands between the marks in the page. tests/test_validity.py fails where a
target, or a point of one, is not in it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs" / "validity.md"
README = ROOT / "README.md"
BLOCK = "<!-- {name}: generated -->\n{body}\n<!-- end -->"


def table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def figure(value: Any) -> str:
    """A number with the digits that count."""
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def overview(targets: Sequence[Mapping[str, Any]]) -> str:
    """A row for each target and metric."""
    rows = []
    for target in targets:
        for number, (name, metric) in enumerate(target["metrics"].items()):
            first = number == 0
            rows.append(
                (
                    f"[{target['name']}](#{target['name']})" if first else "",
                    target["points"] if first else "",
                    target["calibrated"] if first else "",
                    target["predicted"] if first else "",
                    target["fitted_scalars"] if first else "",
                    name,
                    percent(metric["mape_predicted"]),
                    percent(metric["worst_predicted"]),
                    accepted(target, metric),
                    target["outcome"] if first else "",
                )
            )
    head = (
        "target", "points", "calibrated", "predicted", "fitted scalars", "metric",
        "MAPE of the predicted, %", "worst, %", "acceptable, %", "outcome",
    )  # fmt: skip
    return table(head, rows)


def accepted(target: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """The acceptable error in %; of a target of bands, how many points are in theirs."""
    if not target["unrecorded"]:
        return f"{100 * metric['acceptable']:.0f}"
    return f"{target['predicted'] - metric['beyond']} of {target['predicted']} in band"


def section(target: Mapping[str, Any]) -> str:
    """Everything about one target, every point of it."""
    lines = [
        f"### {target['name']}",
        "",
        f"{target['title']}. {target['outcome'].capitalize()}.",
        "",
        f"Source: {target['source']}. Measured on: {target['setup']}.",
        "",
        target["verdict"],
        "",
    ]
    for name, about in target["fitted"].items():
        end = ", at the end of its range" if about.get("at_end_of_range") else ""
        lines.append(f"* fitted: {name} = {figure(about['value'])}{end}")
    for name, metric in target["metrics"].items():
        for group, mape in metric.get("mape_predicted_by", {}).items():
            lines.append(f"* {name}, {group}: MAPE of the predicted points {percent(mape)} %")
        if metric["rank_correlation"] is not None:
            lines.append(f"* {name}: rank correlation {metric['rank_correlation']:.2f}")
    for order in target["orders"]:
        told = "holds" if order["holds"] else "broken at " + "; ".join(order["wrong"])
        lines.append(f"* order of {order['name']}: {told}")
    for sign in target["signs"]:
        told = "holds" if sign["holds"] else "does not hold"
        lines.append(
            f"* {sign['name']}: {told} (measured x {sign['measured']:.2f}, simulated x "
            f"{sign['simulated']:.2f})"
        )
    for bound in target["bounds"]:
        told = "holds" if bound["holds"] else "does not hold"
        ends = {w: " .. ".join(map(figure, bound[w])) for w in ("measured", "simulated")}
        lines.append(
            f"* {bound['name']}: {told} (measured {ends['measured']}, simulated "
            f"{ends['simulated']})"
        )
    band = target["unrecorded"]
    if band:
        ends = f"{band['values'][0]} to {band['values'][-1]}"
        lines.append(
            f"* not recorded: {band['key']}. A point is simulated at {len(band['values'])} values "
            f"({ends}): the mean, and the band of nine in ten"
        )
    rows = (
        (
            row["point"],
            row["metric"],
            figure(row["measured"]),
            figure(row["simulated"]),
            "-" if row["interval"] is None else " .. ".join(map(figure, row["interval"])),
            "-" if row["error"] is None else f"{100 * row['error']:+.1f}",
            row["role"],
            row["grade"],
        )
        for row in target["rows"]
    )
    interval = "band" if band else "95 %"
    head = ("point", "metric", "measured", "simulated", interval, "error, %", "role", "grade")
    return "\n".join([*lines, "", table(head, rows)])


def put(text: str, name: str, body: str) -> str:
    """The page with one generated block renewed."""
    pattern = rf"<!-- {name}: generated -->\n.*?<!-- end -->"
    new, count = re.subn(
        pattern, lambda _: BLOCK.format(name=name, body=body), text, count=1, flags=re.DOTALL
    )
    assert count == 1, f"there is no block {name}"
    return new


def tally(text: str) -> str:
    """What the overview of the page comes to, in a sentence: README says it."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| [")]
    outcomes = [row[-1].rstrip(" |") for row in rows]
    predicted = sum(int(row[3]) for row in rows)
    assert {*outcomes} <= {"reproduced", "partly", "not reproduced"}
    return (
        f"Of {len(rows)} things that others have measured ({predicted} predicted points), "
        f"{outcomes.count('reproduced')} are reproduced, {outcomes.count('partly')} partly, "
        f"{outcomes.count('not reproduced')} not:\n"
        "[docs/validity.md](docs/validity.md) has every point and why."
    )


def block(text: str, name: str) -> str:
    """What a generated block of the page has in it."""
    return text.split(f"<!-- {name}: generated -->\n")[1].split("\n<!-- end -->")[0]


def file_of(name: str) -> str:
    """Targets stand in the order of their files."""
    return f"{name}.toml"


def renewed(text: str, new: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(overview, targets) of the page with these targets made anew, those of others as they are."""
    head, line, *rows = block(text, "overview").splitlines()
    tables: dict[str, list[str]] = {}
    for row in rows:
        if row.startswith("| ["):
            name = row[3:].split("]")[0]
        tables.setdefault(name, []).append(row)
    parts = {
        p.split("\n")[0]: f"### {p}" for p in ("\n" + block(text, "targets")).split("\n### ")[1:]
    }
    for target in new:
        name = target["name"]
        tables[name] = overview([target]).splitlines()[2:]
        parts[name] = section(target)
    lines = [row for name in sorted(tables, key=file_of) for row in tables[name]]
    return "\n".join([head, line, *lines]), "\n\n".join(
        parts[n].strip() for n in sorted(parts, key=file_of)
    )


def main() -> int:
    """Write the page, and what README says of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="what sim validate --json has printed")
    parser.add_argument("--keep-guesses", action="store_true", help="leave the table of guesses")
    parser.add_argument("--tally", action="store_true", help="write README's sentence, no more")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="one target")
    options = parser.parse_args()
    if not options.tally:
        write_page(options)
    told = tally(PAGE.read_text(encoding="utf-8"))
    README.write_text(put(README.read_text(encoding="utf-8"), "tally", told), encoding="utf-8")
    return 0


def write_page(options: argparse.Namespace) -> None:
    """Simulate, or read what was simulated, and renew the page."""
    if options.json:
        targets = json.loads(Path(options.json).read_text())["targets"]
    else:
        from sim.studies.validating import chosen, validate_all

        targets = validate_all(chosen([], options.only), quick=False, jobs=None)
    text = PAGE.read_text(encoding="utf-8")
    if options.only:
        summary, sections = renewed(text, targets)
    else:
        summary = overview(targets)
        sections = "\n\n".join(section(target) for target in targets)
    text = put(text, "overview", summary)
    text = put(text, "targets", sections)
    PAGE.write_text(text, encoding="utf-8")
    if not (options.keep_guesses or options.only):
        import guesses  # beside this script

        guesses.main([])


if __name__ == "__main__":
    sys.exit(main())
