"""A stop or a migration with everything that a notebook wants to look at afterwards."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sim.analysis.timeline import Action
from sim.config import Config
from sim.control.stopping import Stopping, StopPlan, stop
from sim.exports.timeline import of_migration, of_stop
from sim.migrate.moving import Migrating
from sim.migration import migrate
from sim.run import Result


@dataclass(frozen=True)
class Watched:
    """`report` as of sim stop or sim migrate, the frame of requests, what control did (ns)."""

    report: dict[str, Any]
    requests: pd.DataFrame
    actions: list[Action]


def watched_stop(config: Config, plan: StopPlan) -> Watched:
    """Run a config with a stop in it. Errors: ConfigError."""
    kept: list[tuple[pd.DataFrame, list[Action]]] = []

    def look(result: Result, stopping: Stopping) -> None:
        kept.append((result.requests, of_stop(stopping)))

    report = stop(config, plan, look)
    return Watched(report, *kept[0])


def watched_migration(config: Config) -> Watched:
    """Run a config with a migration in it. Errors: ConfigError."""
    kept: list[tuple[pd.DataFrame, list[Action]]] = []

    def look(result: Result, move: Migrating) -> None:
        kept.append((result.requests, of_migration(move)))

    report = migrate(config, look)
    return Watched(report, *kept[0])
