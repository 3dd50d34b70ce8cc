"""python -m sim explain RUN: which stages make the slowest requests slow."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sim.analysis.explain import explain
from sim.errors import ConfigError
from sim.folders import check_file
from sim.points import load_requests
from sim.record import STAGES
from sim.run import run
from sim.studies.compare import Side, read_side

FIGURES = ('.png', '.svg', '.pdf')
BAR = 40  # characters of the longest bar


def main(options: argparse.Namespace) -> int:
    """Explain; the exit code."""
    if options.figure is not None:
        check_file('--figure', options.figure, FIGURES)
    side = read_side(options.run, options.sets, options.seed)
    try:
        found = explain(requests_of(side), share_of(options.slowest))
    except ValueError as error:
        raise ConfigError(f'{options.run}: {error}') from None
    found = {'id': side.config.id, **found}
    if options.figure is not None:
        from sim.analysis.plot_explain import explained
        from sim.analysis.style import save

        save(explained(found), options.figure)
    print(json.dumps(found) if options.json else printed(found))
    return 0


def share_of(text: str) -> float:
    """'1%' as 0.01; ConfigError if it is no share below a half."""
    try:
        share = float(text.strip().removesuffix('%')) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 0.5:
        raise ConfigError(f'--slowest {text}: write a percentage up to 50%, as in 1%')
    return share


def requests_of(side: Side) -> pd.DataFrame:
    """The requests of a saved run, or of one that is made now. Errors: ConfigError."""
    config = side.config
    if config.run.record == 'histogram':
        raise ConfigError('run.record=histogram: keeps no requests; use full or sampled')
    if side.saved is not None:
        return load_requests(side.saved)
    return run(config).requests


def us(ns: float) -> str:
    """Microseconds as printed."""
    return f'{ns / 1e3:.2f}'


def printed(found: Mapping[str, Any]) -> str:
    """What a person wants to see."""
    latency = found['latency']
    lines = [
        f'run {found["id"]}: the slowest {found["share"]:.2%} of {found["requests"]} requests '
        f'({found["tail_requests"]}, from {us(found["threshold_ns"])} µs on) take '
        f'{us(latency["tail"])} µs, those at the median {us(latency["middle"])} µs: '
        f'{us(latency["added"])} µs more',
        '',
        f'{"stage":10}{"median":>10}{"slowest":>10}{"more":>10}{"± 95 %":>9}{"share":>8}'
        f'{"largest in":>12}   (µs)',
    ]
    for stage, entry in found['stages'].items():
        half = '-' if entry['half_width'] is None else us(entry['half_width'])
        lines.append(
            f'{stage:10}{us(entry["middle"]):>10}{us(entry["tail"]):>10}{us(entry["added"]):>10}'
            f'{half:>9}{entry["share"]:>8.1%}{entry["largest_in"]:>12.1%}'
        )
    flight = found['in_flight']
    lines += [
        '',
        f'in flight when they were submitted: {flight["tail"]:.1f}; of all requests '
        f'{flight["all"]:.1f}',
        *(
            f'more often {row["column"]} {row["value"]}: {row["tail"]:.1%} of the slowest, '
            f'{row["all"]:.1%} of all'
            for row in found['crowd']
        ),
    ]
    return '\n'.join([*lines, *_waterfalls(found['examples'])])


def _waterfalls(examples: Mapping[str, Any]) -> list[str]:
    """The stages of the example requests, each bar beginning where the one before ends."""
    longest = max(example['latency_ns'] for example in examples.values())
    lines = []
    for name, example in examples.items():
        lines += [
            '',
            f'{name}: request {example["serial"]} ({example["op"]} of {example["bytes"]} at '
            f'{example["lba"]}, queue {example["queue"]}), {us(example["latency_ns"])} µs',
        ]
        begin = 0
        for stage in STAGES:
            took = example['stages_ns'][stage]
            left = round(BAR * begin / longest)
            begin += took
            width = round(BAR * begin / longest) - left
            lines.append(f'  {stage:10}{us(took):>10}  {" " * left}{"#" * width}'.rstrip())
    return lines
