"""sim stop: stop the VM in the middle of a run, let it go on, and say what became of the I/O."""

import argparse
from typing import Any

from sim.commands import timeline_output
from sim.config import load
from sim.control.stop_policy import policy_named
from sim.control.stopping import Stopping, StopPlan, stop
from sim.errors import ConfigError
from sim.options import config_sources, version_sets
from sim.run import Result
from sim.units import parse_time_ns


def main(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """(text, data) of the stop that the options ask for. Errors: ConfigError."""
    config = load(**config_sources(options), sets=[*options.sets, *version_sets(options)])
    at, lead = _time('--at', options.at), _time('--lead', options.lead)
    if lead > at:
        raise ConfigError(f'--lead {options.lead}: begins before the run does; lower it')
    log = None if options.log is None else _time('--log', options.log)
    if log is not None and log > at - lead:
        raise ConfigError(f'--log {options.log}: begins after the stop does; lower it')
    plan = StopPlan(
        at=at,
        lead=lead,
        log=log,
        policy=policy_named(options.policy, lead),
        gap=_time('--gap', options.gap),
        hold=_time('--hold', options.hold),
    )
    timeline_output.check(config, options.timeline)

    def look(result: Result, stopping: Stopping) -> None:
        timeline_output.write(result, options.timeline, stopping)

    report = stop(config, plan, look)
    return as_text(report), report


def _time(name: str, text: str) -> int:
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise ConfigError(f'{name} {text}: {error}') from None


def as_text(report: dict[str, Any]) -> str:
    """What a person wants to see."""

    def us(ns: int | None) -> str:
        return '-' if ns is None else f'{ns / 1e3:.1f}'

    phases = '  '.join(f'{name} {us(ns)}' for name, ns in report['phases_ns'].items())
    queues = '  '.join(f'{q}: {us(ns)}' for q, ns in report['blackout_ns']['queues'].items())
    answers = ', '.join(f'{n} with {code}' for code, n in report['responses'].items()) or 'none'
    return '\n'.join(
        [
            f'stop at {us(report["at_ns"])} µs, policy {report["policy"]}: {report["outcome"]}',
            *(f'hypothetical     {what}' for what in report['hypothetical']),
            f'at the stop      {report["in_flight_at_stop"]} in flight, '
            f'{report["unfetched_at_stop"]} in the ring and not fetched',
            f'answered         {answers}',
            f'CLEAR_ENDPOINT   {us(report["clear_endpoint_ns"])} µs',
            f'downtime         {us(report["downtime_ns"])} µs',
            f'phases           {phases}  (µs)',
            f'blackout         {us(report["blackout_ns"]["largest"])} µs  (queues: {queues})',
            f'first completion {us(report["first_completion_ns"])} µs after the vCPUs went on',
            f'slow requests    {report["above_1s"]} above 1 s, {report["above_30s"]} above 30 s',
            *report['findings'],
        ]
    )
