"""Draw the figure of the README anew: docs/figures/stages.png.

    python scripts/readme_figure.py

The digests of its runs stand in the file, and tests/test_docs.py fails while they are not those of
the model.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sim.config import Config, load  # noqa: E402
from sim.run import Result, run  # noqa: E402

FIGURE = ROOT / 'docs/figures/stages.png'
KEYWORD = 'Comment'  # of the PNG's text
DRIVERS = {
    'vhost-scsi-pci': 'kernel vhost-scsi',
    'vhost-user-scsi-pci': 'SPDK, polling',
    'virtio-scsi-pci': 'QEMU IOThread',
}
DEPTHS = (1, 4, 16)
TITLE = 'one 4 KiB read on a fast NVMe disk: where the time goes, by backend and iodepth'


def configs() -> dict[tuple[str, int], Config]:
    """What is behind the bars, by backend and depth."""
    return {
        (name, depth): load(
            toml=str(ROOT / 'examples/optane.toml'),
            sets=[f'device.driver={driver}', f'workload.iodepth={depth}'],
        )
        for driver, name in DRIVERS.items()
        for depth in DEPTHS
    }


def results() -> dict[tuple[str, int], Result]:
    """The runs."""
    return {bar: run(config) for bar, config in configs().items()}


def digests(found: dict[tuple[str, int], Result]) -> str:
    """What the figure was made of."""
    return ' '.join(result.report['event_digest'] for result in found.values())


def main() -> None:
    """Simulate, draw, write."""
    import pandas as pd

    from sim.analysis.bounds import least_us
    from sim.analysis.plot import stage_stack

    found = results()
    table = pd.DataFrame(
        {'label': f'{name}, {depth}'}
        | {stage: ns / 1e3 for stage, ns in result.report['stages_ns'].items()}
        | least_us(result.config)
        for (name, depth), result in found.items()
    ).fillna(0)
    figure = stage_stack(table, TITLE, 'backend, iodepth')
    figure.savefig(FIGURE, dpi=90, metadata={KEYWORD: digests(found)})
    print(f'{FIGURE.relative_to(ROOT)}: {FIGURE.stat().st_size} bytes')


if __name__ == '__main__':
    main()
