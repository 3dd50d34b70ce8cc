"""The form that every experiment has: one question, one command line, one way to say what came out.

An experiment is a module of this folder. Its docstring has five parts, which tests check:

    What is asked, in a sentence or two?

    Method: what is simulated, what is held against what.

    Expect: what should come out, and why.

    Takes: a minute on two cores, --quick ten seconds, behind the compilation of the kernels.

It has three functions and says what they write:

    def experiment(options) -> command.Outcome:       # simulates; writes nothing itself
        configs = [
            command.config(options, under=MACHINE, vary={'workload.iodepth': depth})
            for depth in DEPTHS
        ]
        command.announce(options, configs[0])
        reports = command.reports(options, configs)   # as a sweep: finished points are kept
        return command.Outcome(configs[0], rows, violations=command.violations(reports))

    def draw(outcome, folder):                        # exactly the tables and figures below
    def show(outcome):                                # prints the table for people

    EXPERIMENT = command.Experiment(
        'queue_depth', __doc__, experiment, draw, show,
        tables=('queue_depth.csv',), figures={'latency.png': 'latency against iodepth'},
    )

    if __name__ == '__main__':
        sys.exit(EXPERIMENT.main())

What is no plain run of a config (a stop, a migration) goes through command.each() in place of
command.reports(); `points=False` then says that no runs with ids are left. Everything heavy is
imported inside the functions, so that --help is quick. A row is a flat dict of plain numbers and
texts, with units in its names and `x_low` and `x_high` beside x where it has an interval
(command.interval()). Figures are made by sim.analysis and have their colours from
sim.analysis.style.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, UnfinishedError
from sim.options import Parser, add_config, add_json, add_pool, add_seed, add_sweep, config_sources

GUESSES = Path(__file__).resolve().parent.parent / 'results/guesses.csv'  # scripts/guesses.py

# ------------------------------------------------------------------------------- the command ----


@dataclass(frozen=True)
class Outcome:
    """What an experiment found. `config` is a sim Config, `rows` the table, a dict for each line.

    `more` is whatever else draw() and show() need; `beside` goes into --json behind the rows.
    """

    config: Any
    rows: list[dict[str, Any]]
    violations: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)


class FailedError(Exception):
    """A call of each() did not return; the message is a line."""


@dataclass(frozen=True)
class Experiment:
    """What is asked and by whom it is answered; the module's docstring tells more.

    `tables` and `figures` (name: what it shows) are the files that draw() leaves. `points`: the
    runs are a sweep's, kept under their ids, and may be shared out by --shard. `headlines` are the
    numbers that it is quoted for (sim.studies.guesses.Headline), or why it has none; the guesses
    that move them are told with them. `add` gives the parser further options; `instead` is asked
    first: an exit code means that it was another task.
    """

    name: str
    doc: str
    experiment: Callable[[argparse.Namespace], Outcome]
    draw: Callable[[Outcome, Path], None]
    show: Callable[[Outcome], None]
    tables: Sequence[str]
    figures: Mapping[str, str]
    points: bool = True
    headlines: Callable[[argparse.Namespace], list[Any]] | str = ''
    add: Callable[[argparse.ArgumentParser], None] | None = None
    instead: Callable[[argparse.Namespace], int | None] | None = None

    @property
    def question(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return ' '.join(self.doc.split('\n\n')[0].split())

    @property
    def takes(self) -> str:
        """How long it says it takes."""
        return ' '.join(self.doc.split('\nTakes:')[1].split('\n\n')[0].split())

    def parser(self) -> argparse.ArgumentParser:
        """The options that every experiment has."""
        made = Parser(
            prog=f'python -m experiments.{self.name}',
            description=self.doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_config(made)
        made.add_argument('--quick', action='store_true', help='fewer points, fewer requests')
        add_sweep(made) if self.points else add_pool(made)
        add_seed(made)
        made.add_argument(
            '--out', metavar='DIR', default=f'results/runs/{self.name}',
            help='folder for results (default: %(default)s)',
        )  # fmt: skip
        add_json(made)
        made.set_defaults(quiet=False, keep=False)
        if self.add is not None:
            self.add(made)
        return made

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run it; the exit code: 1 if an invariant was broken or a point failed, 2 bad usage."""
        try:
            options = self.parser().parse_args(arguments)
            options.keep = True
        except ConfigError as error:
            return told(error)
        try:
            code = None if self.instead is None else self.instead(options)
            if code is not None:
                return code
            folder = writable(options.out)
            outcome = self.experiment(options)
        except ConfigError as error:
            return told(error)
        except FailedError as error:
            print(f'failed: {error}', file=sys.stderr)
            return 1
        except UnfinishedError as missing:
            return report_unfinished(missing.outcome, options.out)
        except KeyboardInterrupt:
            kept = f'finished points are kept in {options.out}'
            print(f'interrupted: {kept}; start again to go on', file=sys.stderr)
            return 2
        self.draw(outcome, folder)
        if options.json:
            print(as_json(outcome, self.guesses()))
        else:
            self.show(outcome)
            self.say_guesses()
            self.say_where(outcome, folder)
        return 1 if outcome.violations else 0

    def outcome(self, *arguments: str) -> Outcome:
        """What it finds with these options, without a word and without files; for notebooks."""
        options = self.parser().parse_args(arguments)
        options.json = options.quiet = True
        return self.experiment(options)

    def shipped_headlines(self) -> list[Any]:
        """The headlines of the shipped machine (--quick), whatever is asked of this run."""
        if isinstance(self.headlines, str):
            return []
        return self.headlines(self.parser().parse_args(['--quick']))

    def guesses(self) -> list[dict[str, Any]]:
        """Per headline the grade C costs that move it (results/guesses.csv), and if it is stale."""
        from sim.studies import guesses

        rows = guesses.read(GUESSES)
        return guesses.told(f'experiments.{self.name}', self.shipped_headlines(), rows)

    def say_guesses(self) -> None:
        """The same for people."""
        from sim.studies import guesses

        if isinstance(self.headlines, str):
            print(f'\nguesses: no number is told here; {self.headlines}')
            return
        print(f'\n{guesses.printed(self.guesses())}')
        print('  (of --quick on the shipped machine; of yours: python -m sim sensitivity CONFIG)')

    def say_where(self, outcome: Outcome, folder: Path) -> None:
        """What is wrong, and what lies where."""
        for broken in outcome.violations:
            print(f'violation: {broken}')
        print()
        for kind, names in (('table ', self.tables), ('figure', self.figures)):
            for name in names:
                print(f'{kind}   {folder / name}')
        if self.points:
            print(f'runs     {folder}/<id>/ (what sim run --out leaves)')


def told(error: ConfigError) -> int:
    """Say what makes no sense; the exit code."""
    print(f'error: {error}', file=sys.stderr)
    return 2


def experiments() -> list[Experiment]:
    """All of them, by name."""
    import importlib

    modules = (path.stem for path in sorted(Path(__file__).parent.glob('[a-z]*.py')))
    found = (importlib.import_module(f'experiments.{name}') for name in modules)
    return [module.EXPERIMENT for module in found if hasattr(module, 'EXPERIMENT')]


def writable(out: str) -> Path:
    """The folder for the results, made if need be."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / '.writable').touch()
        (folder / '.writable').unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f'{folder}: cannot write results ({error.strerror}); choose another --out'
        ) from error
    return folder


def as_json(outcome: Outcome, guesses: Sequence[Mapping[str, Any]]) -> str:
    """{config, seed, rows, guesses} as one object; what is not a number is null."""
    answer = {
        'config': outcome.config.effective(),
        'seed': outcome.config.run.seed,
        'rows': outcome.rows,
        'guesses': guesses,
        **outcome.beside,
    }
    return json.dumps(plain(answer), allow_nan=False)


def plain(value: Any) -> Any:
    """The value in JSON's own types: numpy's numbers become Python's, NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    value = value.item() if hasattr(value, 'item') else value
    return None if isinstance(value, float) and value != value else value


def report_unfinished(outcome: Any, folder: str) -> int:
    """Say which points are missing, and why; the exit code."""
    for failure in outcome.failures:
        print(f'failed: {failure}', file=sys.stderr)
    there = sum(place is not None for place in outcome.places)
    print(
        f'{there} of {len(outcome.places)} points are in {folder}; the table is drawn when all of '
        'them are: start again without --shard',
        file=sys.stderr,
    )
    return 1 if outcome.failures else 0


# ------------------------------------------------------------------------------- what is run ----


def config(
    options: argparse.Namespace,
    *,
    under: Mapping[str, Mapping[str, Any]] | None = None,
    over: Mapping[str, Any] | None = None,
    vary: Mapping[str, Any] | None = None,
) -> Any:
    """A Config for one point.

    `under`: sections that the experiment takes for granted; any file or option of the user's
    outranks them. `over`: keys ('workload.number_ios') that outrank files, but not --set. `vary`:
    keys that make the point; to --set one of them is an error (but for run.seed, from which the
    seeds are counted).
    """
    from sim.config import load
    from sim.formats.layer import tree_of

    given = [*options.sets, *([] if options.seed is None else [f'run.seed={options.seed}'])]
    point = [f'{key}={value}' for key, value in (vary or {}).items()]
    asked, fixed = tree_of(options.sets), tree_of(point)
    for section, keys in fixed.items():
        for name in keys.keys() & asked.get(section, {}).keys() - {'seed'}:
            raise ConfigError(f'--set {section}.{name}: the experiment varies it; leave it out')
    first = [f'{key}={value}' for key, value in (over or {}).items()]
    return load(**config_sources(options), under=under, sets=[*first, *given, *point])


def announce(options: argparse.Namespace, config: Any) -> None:
    """Say what is simulated: notes on stderr, and the effective config unless --json is given."""
    for note in config.notes:
        print(f'note: {note}', file=sys.stderr)
    if not options.json:
        print(config.to_toml())


def progress_of(options: argparse.Namespace) -> Any:
    """A watcher for people, or into nothing."""
    import io

    from sim.progress import Progress

    return Progress(io.StringIO() if options.quiet else None)


def sweep(options: argparse.Namespace, configs: Sequence[Any]) -> list[Path]:
    """Run every config where the options say; the folders of the points, in order."""
    from sim.sweep import sweep as run_all

    progress = progress_of(options)
    try:
        return run_all(
            configs,
            options.out,
            jobs=options.jobs,
            backend=options.backend,
            scheduler=options.scheduler,
            shard=options.shard,
            watch=progress,
        )
    finally:
        progress.close()


def reports(options: argparse.Namespace, configs: Sequence[Any]) -> list[dict[str, Any]]:
    """The same; the reports of the points, in order."""
    from sim.sweep import load_report

    return [load_report(place) for place in sweep(options, configs)]


def each(
    options: argparse.Namespace,
    function: Callable[..., Any],
    calls: Mapping[str, Sequence[Any]],
) -> list[Any]:
    """What the function returns for each call (label: its arguments), in their order.

    Calls run where the options say, at once as --jobs says: the function stands at a module's top,
    and what it takes and returns can be pickled (a Config as config.effective()). What is run by
    main() is kept in the folder of results, and another start goes on from there.
    """
    from experiments.kept import Kept
    from sim.pools import BrokenPoolError, Died, open_pool
    from sim.sweep import State

    progress, found = progress_of(options), {}
    kept = Kept(options.out, function) if options.keep else None
    for label, arguments in calls.items():
        if kept is not None and (there := kept.find(arguments)) is not None:
            (found[label],) = there
    missing = {label: tuple(arguments) for label, arguments in calls.items() if label not in found}
    packed = [(function, label, arguments) for label, arguments in missing.items()]
    total = len(calls)
    progress(State(total=total, done=len(found), news='already there' if found else ''))
    try:
        with open_pool(options.backend, options.jobs, options.scheduler) as pool:
            for answer in pool.map(timed, packed):
                if isinstance(answer, Died):
                    raise FailedError(f'{answer.call[1]}: its worker died ({answer.reason})')
                label, seconds, found[label] = answer
                if kept is not None:
                    kept.save(missing[label], found[label])
                news = f'{label} in {seconds:.1f} s'
                progress(State(total=total, done=len(found), news=news))
    except BrokenPoolError as error:
        raise FailedError(f'after {len(found)} of {total} points: {error}') from error
    finally:
        progress.close()
    return [found[label] for label in calls]


def timed(function: Callable[..., Any], label: str, arguments: Sequence[Any]) -> Any:
    """In a worker: (label, seconds, what the function returned)."""
    import time

    began = time.perf_counter()
    value = function(*arguments)
    return label, time.perf_counter() - began, value


# --------------------------------------------------------------------------- what came of it ----


def violations(reports: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the checkers found in the runs."""
    return [broken for report in reports for broken in report['violations']]


def interval(
    report: Mapping[str, Any], metric: str, name: str, scale: float = 1.0
) -> dict[str, float | None]:
    """{name_low, name_high}: the 95 % confidence interval of a run's metric, divided by `scale`.

    `metric` as in summary.csv ('iops', 'latency_ns.p99'). None where the run is too short for one.
    """
    low, high = report['intervals']['values'].get(metric) or (None, None)
    return {
        f'{name}_{end}': None if value is None else value / scale
        for end, value in (('low', low), ('high', high))
    }
