"""Fit the disk presets to published measurements, and write down how well they fit.

    python scripts/fit_disks.py [NAME ...]          renew the error tables of the presets
    python scripts/fit_disks.py --fit [NAME ...]    fit their free parameters first
    python scripts/fit_disks.py --check             only say which tables are out of date

A preset (presets/disks/*.toml) has a [target] table, the published points as [[measured]], and in
[fit] what of each point was the host's and not the disk's (`host_time_read`, `host_time_write`:
fio's own submission time and the pause between two requests, a delay per request;
`submission_...` is the part of it that fio's lat has in it), and the free parameters with their
range.
The disk is simulated alone (sim.disks.alone), without the virtio path. Only the points that say
`calibrates = true` are fitted, on their IOPS and with a fiftieth of that weight on their p99; the
others are predictions. Integers are tried one by one, times by differential evolution (scipy).

`read_latency` and `cache_latency` are the published percentiles of the whole command at depth 1
without the host; read_time and cache_time are what is left of them when command_time, serial and
the time on the link are taken off. A p0 that is written as p0 ? is set so that the mean comes out
as published.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sim.config import load  # noqa: E402
from sim.disks.alone import alone  # noqa: E402
from sim.formats.disks import disk_presets, load_disk, preset_path  # noqa: E402
from sim.formats.spread import PPM, Spread, parse_spread  # noqa: E402
from sim.units import format_time, parse_size, parse_time_ns  # noqa: E402

MARK = "# ---- written by scripts/fit_disks.py from here on; do not edit ----\n"
NS_STEP = 10  # times are rounded to this, and to four digits


def rounded(ns: float) -> int:
    """A time with as many digits as a fit can know."""
    step = max(NS_STEP, 10 ** (len(str(int(ns))) - 4))
    return round(ns / step) * step


WEIGHTS = {"iops": 1.0, "p99_us": 0.02}  # of the squared relative errors of a point

Point = dict[str, Any]


# ------------------------------------------------------------------------------------- a model ----


def with_latencies(keys: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with read_time and cache_time derived from the latencies that were published."""
    keys = dict(keys)
    bandwidth = parse_size(str(keys.get("bandwidth", "0")))
    link = 4096 * 10**9 // bandwidth if bandwidth else 0
    rest = sum(parse_time_ns(keys.get(name, "0")) for name in ("command_time", "serial")) + link
    for latency, time in (("read_latency", "read_time"), ("cache_latency", "cache_time")):
        if latency in fit:
            whole = whole_latency(fit[latency], fit.get(f"{latency}_mean"))
            points = tuple((p, max(ns - rest, NS_STEP)) for p, ns in whole.points)
            keys[time] = str(Spread("quantiles", points))
    return keys


def whole_latency(text: str, mean: str | None) -> Spread:
    """The published percentiles, with the p0 that gives the published mean."""
    if "p0 ?" not in text:
        return parse_spread(text)
    points = parse_spread(text.replace("p0 ?", "p0 0")).points
    share = points[1][0]
    missing = parse_time_ns(mean) - Spread("quantiles", points).mean_ns
    least = int(missing * 2 * PPM / share) // NS_STEP * NS_STEP
    assert 0 < least <= points[1][1], f"no p0 gives a mean of {mean} with {text}"
    return Spread("quantiles", ((0, least), *points[1:]))


def simulate(keys: Mapping[str, Any], fit: Mapping[str, Any], point: Point) -> Point:
    """The point as the model has it; latencies with the host's share, as fio's lat."""
    target = load(target={**keys}).target
    side = "write" if point["rw"] == "randwrite" else "read"
    host = parse_time_ns(fit[f"host_time_{side}"])
    submission = parse_time_ns(fit[f"submission_{side}"]) / 1e3
    count = int(fit.get(f"requests_{side}", fit["requests"]))
    run = alone(
        target, depth=point["iodepth"], requests=count, rw=point["rw"], host_ns=host,
        size=fit.get("size"),
    )  # fmt: skip
    skip = count // (2 if side == "write" else 8)  # until the cache is full
    latency = run.latency_us[skip:]
    return {
        "iops": run.iops_from(skip),
        "mean_us": float(latency.mean()) + submission,
        "p99_us": float(np.quantile(latency, 0.99)),
    }


def keys_of(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """[target] with the free parameters at `values`."""
    return with_latencies({**preset["target"], **values}, preset["fit"])


# ---------------------------------------------------------------------------------------- fit ----


def fitted(preset: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the free parameters that come closest to the points that calibrate."""
    from scipy.optimize import differential_evolution

    free = preset["fit"].get("free", {})
    whole = {name: range_ for name, range_ in free.items() if isinstance(range_[0], int)}
    times = {name: range_ for name, range_ in free.items() if name not in whole}
    points = [point for point in preset["measured"] if point.get("calibrates")]

    def error(values: Mapping[str, Any]) -> float:
        keys, total = keys_of(preset, values), 0.0
        for point in points:
            model = simulate(keys, preset["fit"], point)
            total += sum(
                weight * np.log(model[name] / point[name]) ** 2
                for name, weight in WEIGHTS.items()
                if name in point
            )
        return float(total)

    best: tuple[float, dict[str, Any]] = (np.inf, {})
    low, high = ([np.log(parse_time_ns(r[end])) for r in times.values()] for end in (0, 1))
    for integers in itertools.product(*whole.values()):
        fixed = dict(zip(whole, integers, strict=True))

        def at(x: Iterable[float], fixed: dict[str, Any] = fixed) -> dict[str, Any]:
            values = (format_time(rounded(float(np.exp(log_ns)))) for log_ns in x)
            return fixed | dict(zip(times, values, strict=True))

        if times:
            found = differential_evolution(
                lambda x: error(at(x)), list(zip(low, high, strict=True)), seed=1, popsize=8,
                maxiter=30, tol=1e-4, polish=False,
            )  # fmt: skip
            result = (float(found.fun), at(found.x))
        else:
            result = (error(fixed), fixed)
        print(f"  {result[1]}: error {result[0] ** 0.5:.4f}", file=sys.stderr)
        best = min(best, result, key=lambda pair: pair[0])
    return best[1]


# -------------------------------------------------------------------------------------- files ----


def tables(preset: Mapping[str, Any]) -> str:
    """The error table, as TOML."""
    lines = [MARK]
    keys = preset["target"]
    for point in preset["measured"]:
        model = simulate(keys, preset["fit"], point)
        lines += [
            "[[fit.points]]",
            f'rw = "{point["rw"]}"',
            f"iodepth = {point['iodepth']}",
            f'role = "{"calibrated" if point.get("calibrates") else "predicted"}"',
        ]
        for name, digits in (("iops", 0), ("mean_us", 1), ("p99_us", 1)):
            if name in point:
                lines.append(f"{name} = {point[name]}")
                value = round(model[name], digits) if digits else round(model[name])
                lines.append(f"model_{name} = {value}")
                lines.append(f"error_{name}_percent = {100 * (model[name] / point[name] - 1):.1f}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def set_keys(text: str, keys: Mapping[str, Any]) -> str:
    """A preset's text with these keys of [target] at new values."""
    head, body = text.split("[target]\n", 1)
    table, *rest = re.split(r"(?=\n\[)", body, maxsplit=1)
    for name, value in keys.items():
        written = f'"{value}"' if isinstance(value, str) else str(value)
        table, count = re.subn(
            rf"(?m)^{name} = [^#\n]*(#?)",
            lambda m, line=f"{name} = {written}": f"{line:<32} {m[1]}" if m[1] else line,
            table,
        )
        assert count == 1, f"[target] has no {name}"
    return head + "[target]\n" + table + "".join(rest)


def renew(name: str, *, fit: bool, check: bool) -> bool:
    """Fit and write one preset; whether its table was up to date."""
    path = preset_path(name)
    old = path.read_text(encoding="utf-8")
    text = old.split(MARK)[0]
    preset = load_disk(name)
    if "measured" not in preset:
        return True
    if fit:
        print(name, file=sys.stderr)
        values = fitted(preset)
        derived = {
            k: v for k, v in keys_of(preset, values).items() if k in ("read_time", "cache_time")
        }
        text = set_keys(text, values | {k: v for k, v in derived.items() if k in preset["target"]})
        path.write_text(text, encoding="utf-8")
        preset = load_disk(name)
    new = text.rstrip("\n") + "\n\n" + tables(preset)
    if not check:
        path.write_text(new, encoding="utf-8")
    return new == old


def main() -> int:
    """Renew what was asked for; with --check 1 if a table is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="presets (default: all)")
    parser.add_argument("--fit", action="store_true", help="fit the free parameters first")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = [
        name
        for name in options.name or disk_presets()
        if not renew(name, fit=options.fit, check=options.check)
    ]
    for name in stale:
        print(f"{name}: {'out of date' if options.check else 'renewed'}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
