"""python -m experiments: what there is."""

import textwrap

from experiments.command import experiments


def main() -> None:
    """Print every experiment's question and how long it takes."""
    for experiment in experiments():
        print(f'python -m experiments.{experiment.name}')
        for text in (experiment.question, f'Takes {experiment.takes}'):
            print(textwrap.fill(text, 96, initial_indent='    ', subsequent_indent='    '))


if __name__ == '__main__':
    main()
