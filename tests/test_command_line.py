"""The command line as a whole: a file per command, quick to answer, mistakes told in one line."""

import argparse
import inspect
from pathlib import Path

import numba  # noqa: F401  # here, or `sim scsi` switches it off for the tests behind it
import pytest

import sim.commands
from sim.__main__ import COMMANDS, command_line, main
from sim.commands.ioctls import SCENARIOS

FILES = sorted(path.stem for path in Path(sim.commands.__file__).parent.glob('[!_]*.py'))


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Every command's, and every action's of a command, by its words."""
    found = {}
    todo = [command_line()]
    while todo:
        parser = todo.pop()
        found[parser.prog.partition(' ')[2]] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                todo += action.choices.values()
    del found['']
    return found


def test_each_file_is_a_command_and_each_command_a_file():
    assert sorted(module.__name__.rpartition('.')[2] for module in COMMANDS) == FILES
    assert {words.partition(' ')[0] for words in parsers()} == set(FILES)


@pytest.mark.parametrize('module', COMMANDS, ids=lambda module: module.__name__)
def test_a_command_file_is_add_and_main(module):
    assert [*inspect.signature(module.add).parameters] == ['commands']
    assert [*inspect.signature(module.main).parameters] == ['options']


def test_every_option_says_what_it_is():
    silent = [
        f'{words} {action.option_strings or action.dest}'
        for words, parser in parsers().items()
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []


def test_every_command_sets_main():
    for words, parser in parsers().items():
        if words != 'ring':
            assert parser.get_default('command') is not None, words


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('', 'error: vhost-scsi-sim: '),
        ('rnu', "; the nearest is 'run'"),
        ('qqq', "'bench')"),
        ('run --seed', 'error: run: argument --seed: expected one argument'),
        ('run --seed x', 'error: run: argument --seed: '),
        ('run --replicaitons=3', "--replicaitons=3; the nearest is '--replications'"),
        ('run --iodepth 4', 'a key of the config is given with --set'),
        ('bench this', 'error: bench: unrecognized arguments: this'),
        ('ring inspect x --jsno', "error: ring: unrecognized arguments: --jsno"),
        ('ring inspect', 'error: ring inspect: '),
        ('ioctls --scenario stp', "; the nearest is 'stop'"),
        ('scsi INQUIRY --nosuch', 'error: scsi: unrecognized arguments: --nosuch'),
        ('scsi INQUIRY --vdp 3', "; the nearest is '--vpd'"),
    ],
)
def test_a_mistake_is_told_in_one_line(line, says, capsys):
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.count('\n') == 1
    assert says in captured.err


def test_scenarios_that_are_offered_are_those_that_are_traced():
    from sim.studies.ioctls import THREADS

    assert (*THREADS, 'migrate') == SCENARIOS  # a migration is all of them, and the destination
