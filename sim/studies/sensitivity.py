"""python -m sim sensitivity: how much each cost moves each result, and which guesses matter.

Each cost is moved alone, a step up and down and to both ends of its range, and the config simulated
again under the same random numbers: what differs is the cost. The elasticity is the share by which
a result moves per share by which the cost moves, d log(result) / d log(cost); 95 % intervals are
Student's t over replications. The costs are those of the data path; what control costs moves only
runs with a stop in them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.analysis import stats
from sim.config import Config
from sim.costs import MODEL_PARAMETERS, Costs, derive, load_preset
from sim.errors import ConfigError
from sim.features import STACKS
from sim.pools import Pool
from sim.replicate import replication
from sim.run import run
from sim.studies.measuring import number_at

OUTPUTS = (
    'iops', 'latency_ns.mean', 'latency_ns.p50', 'latency_ns.p99', 'requests_per_kick',
    'requests_per_interrupt',
)  # fmt: skip
MATTERS = 0.05  # a result moved by more than this over the range of a guess


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost as it stands in this config: in cycles, ns or percent, whole numbers as the model."""

    name: str
    value: int
    unit: str
    minimum: int | None
    maximum: int | None
    grade: str

    def around(self, step: float) -> tuple[int, int]:
        """A step down and up, at least one whole unit; a share stays within 0 ... 100 %."""
        least = max(1, round(self.value * step))
        most = 100 if self.unit == 'percent' else 1 << 62
        return max(0, self.value - least), min(most, self.value + least)


def costs_of(config: Config, names: Iterable[str] = MODEL_PARAMETERS) -> list[Cost]:
    """Every cost that the data path charges, as this config has it. Ranges are the preset's.

    `names`: of other costs, or of more (sim.control.costs.CONTROL_PARAMETERS).
    """
    preset = load_preset(config.run.preset)
    found = []
    for name in sorted(names):
        row = preset.parameters[name]
        if row.unit in ('cycles', 'ns'):
            factor = config.host.cpu_hz / (preset.cpu_hz if row.unit == 'cycles' else 1e9)
            value = row.value * factor
            if name in config.costs:
                value = config.costs[name] * config.host.cpu_hz / 1e9
            unit = 'cycles'
        else:
            factor, value, unit = 1.0, config.costs.get(name, row.value), 'percent'
        ends = [None if end is None else round(end * factor) for end in (row.minimum, row.maximum)]
        found.append(
            Cost(
                name=name, value=round(value), unit=unit, minimum=ends[0], maximum=ends[1],
                grade=row.grade,
            )
        )  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------- runs


def table_with(config: Config, change: tuple[str, int, str] | None) -> Costs:
    """The cost table of a config with one cost (name, value, unit) changed. Errors: ConfigError."""
    overrides: dict[str, float] = dict(config.costs)
    if change is not None:
        name, value, unit = change
        overrides[name] = value if unit == 'percent' else value * 1e9 / config.host.cpu_hz
    return derive(
        load_preset(config.run.preset), overrides, config.host.cpu_hz, config.guest.halt_poll_ns,
        stack=STACKS[config.device.driver], deep_idle=config.host.deep_idle,
        per_command=config.host.lio_submission == 'per_command',
    )  # fmt: skip


def simulate(
    config: Config, number: int, change: tuple[str, int, str] | None, outputs: Sequence[str]
) -> tuple[int, tuple[str, int] | None, dict[str, float] | str, list[str]]:
    """In a worker: one replication with one cost (name, value, unit) changed; what came out."""
    key = None if change is None else (change[0], change[1])
    try:
        table = table_with(config, change)
    except ConfigError as error:  # a share below the cache-line costs that it contains
        return number, key, str(error), []
    result = run(replication(config, number), costs_override=table)
    found = {}
    for output in outputs:
        try:
            found[output] = number_at(result.report, output)
        except ConfigError as error:
            if change is None and number == 0 and output not in OUTPUTS:
                raise ConfigError(f'--output {output}: {error}') from None
    return number, key, found, result.violations


def sensitivity(
    config: Config, pool: Pool, *, outputs: Sequence[str], step: float, replications: int
) -> dict[str, Any]:
    """Elasticities and ranges of every cost, as plain data. Errors: ConfigError."""
    if not 0.01 <= step <= 0.5:
        raise ConfigError(f'--step {step:g}: give a share of 0.01 to 0.5')
    if replications < 1:
        raise ConfigError(f'--replications {replications}: at least one run is needed')
    costs = costs_of(config)
    calls: list[tuple[Any, ...]] = []
    for number in range(replications):
        calls.append((config, number, None, outputs))
        for cost in costs:
            ends = [end for end in (cost.minimum, cost.maximum) if end is not None]
            values = {*cost.around(step), *ends} - {cost.value}
            calls += [(config, number, (cost.name, v, cost.unit), outputs) for v in sorted(values)]
    seen: dict[tuple[int, tuple[str, int] | None], dict[str, float] | str] = {}
    violations = []
    for number, key, found, broken in pool.map(simulate, calls):
        seen[number, key] = found
        violations += [f'{key}: {text}' for text in broken]
    rows = [
        row
        for cost in costs
        for output in outputs
        if (row := _row(cost, output, seen, step, replications)) is not None
    ]
    base = [seen[number, None] for number in range(replications)]
    notes = sorted({text for text in seen.values() if isinstance(text, str)})
    return {
        'config': config.effective(),
        'seed': config.run.seed,
        'step': step,
        'replications': replications,
        'runs': len(calls),
        'base': {
            output: float(np.mean([b[output] for b in base if isinstance(b, dict)]))
            for output in outputs
            if all(isinstance(b, dict) and output in b for b in base)
        },
        'rows': rows,
        'guesses': [
            {k: row[k] for k in ('cost', 'output', 'low', 'high', 'moves')}
            for row in sorted(rows, key=lambda r: -(r['moves'] or 0))
            if row['grade'] == 'C' and (row['moves'] or 0) > MATTERS
        ],
        'notes': notes,
        'violations': violations,
    }


def _row(
    cost: Cost, output: str, seen: Mapping[Any, Any], step: float, replications: int
) -> dict[str, Any] | None:
    """One cost and one output; None where the output is not reported."""

    def at(number: int, value: int | None) -> float | None:
        key = None if value is None or value == cost.value else (cost.name, value)
        found = seen.get((number, key))
        return found.get(output) if isinstance(found, dict) else None

    base = [at(number, None) for number in range(replications)]
    if None in base or 0 in base:
        return None
    down, up = cost.around(step)
    slopes = []
    for number in range(replications):
        low, high = at(number, down), at(number, up)
        if low and high and down > 0:
            slopes.append(math.log(high / low) / math.log(up / down))
    half = stats.mean_interval(slopes).half_width if len(slopes) > 1 else None
    ends = {}
    for name, value in (('low', cost.minimum), ('high', cost.maximum)):
        changes = [
            end / b - 1
            for number, b in enumerate(base)
            if value is not None and b and (end := at(number, value)) is not None
        ]
        ends[name] = float(np.mean(changes)) if changes else None
    known = [abs(change) for change in ends.values() if change is not None]
    return {
        'cost': cost.name,
        'grade': cost.grade,
        'unit': cost.unit,
        'value': cost.value,
        'range': [cost.minimum, cost.maximum],
        'output': output,
        'elasticity': float(np.mean(slopes)) if slopes else None,
        'half_width': half,
        **ends,  # the share by which the output moves where the cost is at that end of its range
        'moves': max(known, default=None),
    }
