"""make bench: how fast the simulator itself is, topic by topic.

Each topic is a module beside this one with two functions: measure(rounds, number_ios) returns a
flat table of numbers (None where something that it needs is missing), explain(table) says in words
what they mean. `python -m sim bench` calls this.
"""

import importlib
import json
import sys
from pathlib import Path

from sim.errors import ConfigError
from sim.options import Parser

TOPICS = ('ring', 'engine', 'sweep')


def main() -> int:
    """Print the tables and write benchmarks/latest.json."""
    parser = Parser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('--only', choices=TOPICS, action='append', help='one topic (repeatable)')
    parser.add_argument('--rounds', type=int, default=5, help='medians are over so many rounds')
    parser.add_argument('--number-ios', type=int, default=10_000, help='requests per round')
    parser.add_argument('--json', action='store_true', help='print one JSON object, nothing else')
    try:
        options = parser.parse_args()
        if options.rounds < 1 or options.number_ios < 1:
            parser.error('--rounds and --number-ios are 1 or more')
    except ConfigError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    whole: dict[str, float | None] = {}
    for topic in options.only or TOPICS:
        module = importlib.import_module(f'benchmarks.{topic}')
        table = module.measure(options.rounds, options.number_ios)
        whole.update(table)
        if not options.json:
            print_table(table)
            print(f'\n{module.explain(table)}\n')
    (Path(__file__).parent / 'latest.json').write_text(json.dumps(whole, indent=1) + '\n')
    if options.json:
        print(json.dumps(whole))
    return 0


def print_table(table: dict[str, float | None]) -> None:
    """One line per key."""
    for key, value in table.items():
        print(f'{key:36} {"none" if value is None else f"{value:.2f}":>12}')


if __name__ == '__main__':
    sys.exit(main())
