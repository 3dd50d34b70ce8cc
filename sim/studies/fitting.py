"""Least squares on simulations: a fit in logarithms, how far it is determined, and profiles.

The parameters are positive and move within a range; their logarithms are laid over 0 ... 1. Runs of
one seed see the same random numbers, so a residual is nearly smooth in them, but not at the size of
a rounding: derivatives are differences over a step that a person would call a change.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Residuals = Callable[[tuple[float, ...]], Floats]  # of parameter values, in their own units
Ahead = Callable[[Sequence[tuple[float, ...]]], None]  # is told which of them will be asked for

STEP_LOG = 0.05  # a change of five percent
GRID = {1: 7, 2: 4, 3: 3}  # values of each parameter that are tried first
STARTS = 4  # of these, the best are gone down from, until one ends well
ALIKE = 0.98  # |cosine| of two parameters' effects above which the data cannot tell them apart
FAINT = 0.02  # an effect so small against the largest, or against the noise, is none


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`values` in their units; `residuals` and `jacobian` (by the logarithm) where they are."""

    values: tuple[float, ...]
    residuals: Floats
    jacobian: Floats

    @property
    def total(self) -> float:
        """Sum of the squared residuals."""
        return float(self.residuals @ self.residuals)


class Space:
    """Parameter values as places in the unit cube, and the residuals there, each computed once."""

    def __init__(
        self, residuals: Residuals, low: Sequence[float], high: Sequence[float],
        ahead: Ahead | None = None,
    ) -> None:  # fmt: skip
        self.residuals = residuals
        self.ahead = ahead
        self.low = np.log(np.asarray(low, dtype=np.float64))
        self.span = np.log(np.asarray(high, dtype=np.float64)) - self.low
        self.seen: dict[tuple[float, ...], Floats] = {}

    def values(self, place: Floats) -> tuple[float, ...]:
        """The parameters at a place, to five digits, so that equal places are found again."""
        exact = np.exp(self.low + np.clip(place, 0, 1) * self.span)
        return tuple(float(f'{value:.5g}') for value in exact)

    def place(self, values: Sequence[float]) -> Floats:
        """The place of parameter values."""
        found = (np.log(np.asarray(values, dtype=np.float64)) - self.low) / self.span
        return np.asarray(np.clip(found, 0, 1))

    def at(self, place: Floats) -> Floats:
        """The residuals at a place."""
        values = self.values(place)
        if values not in self.seen:
            self.seen[values] = np.asarray(self.residuals(values), dtype=np.float64)
        return self.seen[values]

    def announce(self, places: Sequence[Floats]) -> None:
        """Say that the residuals of all these will be wanted, so that they can be had at once."""
        new = dict.fromkeys(self.values(place) for place in places)
        wanted = [values for values in new if values not in self.seen]
        if self.ahead is not None and wanted:
            self.ahead(wanted)

    def jacobian(self, place: Floats, free: Sequence[int]) -> Floats:
        """Derivatives by the free coordinates, over a step inwards or both ways."""
        steps = []
        for index in free:
            step = min(STEP_LOG / self.span[index], 0.25)
            up, down = place.copy(), place.copy()
            up[index], down[index] = min(1.0, up[index] + step), max(0.0, down[index] - step)
            steps.append((up, down, up[index] - down[index]))
        self.announce([side for up, down, _ in steps for side in (up, down)])
        return np.array([(self.at(up) - self.at(down)) / wide for up, down, wide in steps]).T

    def settle(self, start: Floats, free: Sequence[int], evaluations: int = 12) -> Floats:
        """The place of least squares over the free coordinates, from `start` on."""
        if not free:
            return start
        from scipy.optimize import least_squares

        def whole(x: Floats) -> Floats:
            place = start.copy()
            place[list(free)] = x
            return place

        found = least_squares(
            lambda x: self.at(whole(x)), start[list(free)],
            jac=lambda x: self.jacobian(whole(x), free), bounds=(-1e-9, 1 + 1e-9),
            xtol=1e-4, ftol=1e-4, gtol=1e-8, max_nfev=evaluations,
        )  # fmt: skip
        return np.clip(whole(found.x), 0, 1)


def fit(
    residuals: Residuals,
    low: Sequence[float],
    high: Sequence[float],
    start: Sequence[float] | None = None,
    enough: float = 0.0,
    ahead: Ahead | None = None,
) -> tuple[Fit, Space]:
    """Where the sum of squares is least: a coarse grid, then down from its best places.

    One place is not enough: where a parameter does not bind (a stage behind the bottleneck) the
    way is flat, and down from there leads into a corner. `enough` is the mean square residual at
    which no further start is tried. `ahead` is told of places that can be computed at once.
    """
    space = Space(residuals, low, high, ahead)
    count = len(low)
    side = GRID.get(count, 2)
    ticks = [(n + 0.5) / side for n in range(side)]
    places = [np.array(p, dtype=np.float64) for p in itertools.product(ticks, repeat=count)]
    if start is not None:
        places.append(space.place(start))
    space.announce(places)

    def total(place: Floats) -> float:
        return float(space.at(place) @ space.at(place))

    ends: list[Floats] = []
    for place in sorted(places, key=total)[:STARTS]:
        ends.append(space.settle(place, range(count)))
        if total(ends[-1]) <= enough * len(space.at(place)):
            break
    return _fit_at(space, min(ends, key=total)), space


def _fit_at(space: Space, place: Floats) -> Fit:
    jacobian = space.jacobian(place, range(len(place))) / space.span
    return Fit(values=space.values(place), residuals=space.at(place), jacobian=jacobian)


def profile(space: Space, found: Fit, index: int, rise: float) -> tuple[float | None, float | None]:
    """The range of one parameter within which the others can keep the sum of squares that low.

    `rise` is how much it may be above the least. None: not bounded on that side within the range.
    """
    best = space.place(found.values)
    free = [n for n in range(len(best)) if n != index]
    power = float(found.jacobian[:, index] @ found.jacobian[:, index])
    guess = math.sqrt(rise / power) / space.span[index] if power > 0 else 0.1
    ends: list[float | None] = []
    for way in (-1, 1):
        step = way * min(max(guess, 0.002), 0.3)
        ends.append(_crossing(space, best, index, free, step, found, rise))
    return ends[0], ends[1]


def _crossing(
    space: Space, best: Floats, index: int, free: Sequence[int], step: float, found: Fit,
    rise: float,
) -> float | None:  # fmt: skip
    """Walk outwards until the sum of squares is above the limit, then halve the last step."""

    def excess(place: Floats) -> float:
        return float(space.at(place) @ space.at(place)) - found.total - rise

    inside, warm = float(best[index]), best
    edge = 0.0 if step < 0 else 1.0
    outside = None
    for _ in range(12):
        if inside == edge:
            return None
        trial = warm.copy()
        trial[index] = np.clip(inside + step, 0.0, 1.0)
        trial = space.settle(trial, free, 3)
        if excess(trial) > 0:
            outside = float(trial[index])
            break
        inside, warm, step = float(trial[index]), trial, 1.6 * step
    if outside is None:
        return None
    for _ in range(3):
        trial = warm.copy()
        trial[index] = (inside + outside) / 2
        trial = space.settle(trial, free, 3)
        if excess(trial) > 0:
            outside = float(trial[index])
        else:
            inside, warm = float(trial[index]), trial
    place = best.copy()
    place[index] = outside  # the end that is surely no longer inside
    return space.values(place)[index]


def undetermined(found: Fit, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the data cannot say: parameters without an effect, and sets with only one effect."""
    sizes = np.sqrt((found.jacobian**2).sum(axis=0))
    largest = float(sizes.max(initial=0.0))
    faint = [n for n in range(len(names)) if sizes[n] <= FAINT * largest or sizes[n] == 0]
    said: list[dict[str, Any]] = [
        {'parameters': [names[n]], 'why': 'it moves none of the fitted numbers'} for n in faint
    ]
    rest = [n for n in range(len(names)) if n not in faint]
    for a, b in itertools.combinations(rest, 2):
        cosine = float(found.jacobian[:, a] @ found.jacobian[:, b] / sizes[a] / sizes[b])
        if abs(cosine) >= ALIKE:
            how = 'only together' if cosine > 0 else 'only their difference'
            said.append(
                {
                    'parameters': [names[a], names[b]],
                    'cosine': cosine,
                    'why': f'they move the fitted numbers alike ({how} do they show)',
                }
            )
    return said
