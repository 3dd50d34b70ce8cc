"""python -m experiments: what there is."""

import sys
import textwrap
from collections.abc import Sequence

from experiments.command import experiments, told
from sim.errors import ConfigError
from sim.options import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every experiment's question and how long it takes; returns the exit code."""
    parser = Parser(prog='python -m experiments', description='List the experiments.')
    try:
        parser.parse_args(arguments)
    except ConfigError as error:
        return told(ConfigError(f'{error}; to run one: python -m experiments.NAME'))
    for experiment in experiments():
        print(f'python -m experiments.{experiment.name}')
        for text in (experiment.question, f'Takes {experiment.takes}'):
            print(textwrap.fill(text, 96, initial_indent='    ', subsequent_indent='    '))
    return 0


if __name__ == '__main__':
    sys.exit(main())
