"""What sim stop and sim migrate say of their reports alike: lines for people, and how they end."""

import json
import sys
from typing import Any


def us(ns: int | None) -> str:
    """Microseconds; a dash where there is no such time."""
    return '-' if ns is None else f'{ns / 1e3:.1f}'


def hypothetical(report: dict[str, Any]) -> list[str]:
    """What no real stack does."""
    return [f'hypothetical     {what}' for what in report['hypothetical']]


def at_the_stop(report: dict[str, Any]) -> list[str]:
    """What was where when the device stopped, and what became of it."""
    answers = ', '.join(f'{n} with {code}' for code, n in report['responses'].items()) or 'none'
    flying, waiting = report['in_flight_at_stop'], report['unfetched_at_stop']
    unseen = sum(report['responses'].values()) - flying - waiting
    seen = f', {unseen} answered and not yet seen by the guest' if unseen > 0 else ''
    return [
        f'at the stop      {flying} in flight, {waiting} in the ring and not fetched{seen}',
        f'answered         {answers}',
    ]


def clear_endpoint(report: dict[str, Any]) -> list[str]:
    """How long CLEAR_ENDPOINT took, of a device that has it."""
    ns = report['clear_endpoint_ns']
    return [] if ns is None else [f'CLEAR_ENDPOINT   {us(ns)} µs']


def stopped(report: dict[str, Any], queues: str = '') -> list[str]:
    """The phases, and what the guest felt; `queues` goes behind the blackout."""
    phases = '  '.join(f'{name} {us(ns)}' for name, ns in report['phases_ns'].items())
    return [
        f'phases           {phases}  (µs)',
        f'blackout         {us(report["blackout_ns"]["largest"])} µs{queues}',
        f'first completion {us(report["first_completion_ns"])} µs after the vCPUs went on',
    ]


def slow(report: dict[str, Any]) -> list[str]:
    """Requests that took very long."""
    return [f'slow requests    {report["above_1s"]} above 1 s, {report["above_30s"]} above 30 s']


def not_struck(report: dict[str, Any]) -> list[str]:
    """Faults that were asked for and had nothing to strike."""
    return [
        f'fault            {fault["fault"]} did not strike: its step or phase never came'
        for fault in report['faults']
        if fault['struck_ns'] is None
    ]


def end(report: dict[str, Any], text: str | None) -> int:
    """Print the text, or the report as JSON, and on stderr what is violated; the exit code is 1
    where a requirement is that the policy does not break on purpose.
    """
    print(json.dumps(report) if text is None else text)
    violations = report['violations']
    for broken in violations:
        print(f'violation: {broken}', file=sys.stderr)
    if violations:
        print(f'replay: {report["replay"]}', file=sys.stderr)
    elif report['expected']:
        print(
            f'note: policy {report["policy"]} is there to violate requirement '
            f'{report["expected"]}: nothing in this run was in its way',
            file=sys.stderr,
        )
    return int(bool(violations) and not report['expected'])
