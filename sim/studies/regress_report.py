"""The report of sim regress: one HTML file with its figures inside, Markdown, and the data."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import sim
from sim.analysis import plot_regress
from sim.errors import ConfigError
from sim.jit import MODEL_DIGEST
from sim.studies import regress_text

TEMPLATES = Path(__file__).parent / 'templates'
FACTS = ('latency_ns.mean', 'latency_ns.p99', 'iops')


def prepare(folder: Path) -> None:
    """Make the folder before anything is simulated. Errors: ConfigError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """report.html, report.md and report.json. Errors: ConfigError where they cannot be written."""
    prepare(folder)
    files = {
        'report.html': html(found),
        'report.md': markdown(found),
        'report.json': json.dumps(found, indent=1) + '\n',
    }
    try:
        for name, text in files.items():
            (folder / name).write_text(text, encoding='utf-8')
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f'{folder}: the report cannot be written ({error.strerror or error}); choose another '
        '--report'
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The tables, for where nobody opens a page."""
    return _rendered('regress.md.j2', found)


def html(found: Mapping[str, Any]) -> str:
    """One file that needs nothing else."""
    with_pairs = [entry for entry in found['scenarios'] if entry['pairs']]
    moved_first = sorted(with_pairs, key=lambda entry: entry['state'] == 'same')
    overview = _image(plot_regress.changes(with_pairs)) if with_pairs else None
    figures = [
        {'entry': entry, 'image': _image(plot_regress.scenario(entry))} for entry in moved_first
    ]
    return _rendered('regress.html.j2', found, overview=overview, figures=figures)


def _rendered(template: str, found: Mapping[str, Any], **more: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith('.html.j2'),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['cell'] = _cell
    environment.filters['percent'] = _percent
    return environment.get_template(template).render(
        found=found,
        overview_rows=overview_rows(found),
        columns=regress_text.COLUMNS,
        table=regress_text.table(found),
        whole_table=regress_text.table(found, whole=True),
        meaning=regress_text.meaning(found),
        stage_line=regress_text.stage_line(found),
        counts=regress_text.counts(found),
        version=sim.__version__,
        model=MODEL_DIGEST,
        **more,
    )


def _cell(text: str) -> str:
    """Text in a Markdown table."""
    return text.replace('|', '\\|')


def _percent(value: float | None) -> str:
    """A change for a table; what is next to nothing has no digits worth a column."""
    if value is None:
        return '-'
    if abs(value) < 0.001:
        return '< 0.001 %' if value else '0 %'
    return f'{value:+.3g} %'


def overview_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per scenario: state, points, the changes of FACTS in percent (None: not known)."""
    rows = []
    for entry in found['scenarios']:
        changes = {}
        for metric in FACTS:
            test = entry['pairs'].get(metric)
            known = test is not None and test['baseline']
            changes[metric] = test['difference'] / abs(test['baseline']) * 100 if known else None
        rows.append(
            {
                'name': entry['name'],
                'about': entry['about'],
                'state': entry['state'],
                'points': entry['points'],
                'differing': entry['points'] - entry['equal'],
                'changes': changes,
                'stage': entry['stage'] or '-',
            }
        )
    return rows


def _image(figure: Any) -> dict[str, Any]:
    """A figure as a data URI, and the size in which a page shows it."""
    content, width, height = plot_regress.png(figure)
    text = base64.b64encode(content).decode()
    return {'src': f'data:image/png;base64,{text}', 'width': width, 'height': height}
