"""Every column and number of a result is described, and nothing is described that is not there."""

import pytest

from sim import record
from sim.analysis import meanings
from sim.config import load
from sim.pools import Here
from sim.replicate import replicate
from sim.run import run

PLUG = {'at': '100us', 'action': 'remove', 'lun': 1}
CONFIGS = {
    'plain': {'workload': {'number_ios': 1500, 'iodepth': 4}},
    'packed': {'device': {'packed': True}, 'run': {'hypothetical': True}},
    'flash': {
        'workload': {'rw': 'randwrite', 'fsync': 8, 'number_ios': 100},
        'target': {
            'kind': 'ssd',
            'write_cache': '1m',
            'network_round_trip': '100us',
            'network_loss': 1000,
        },
        'host': {'kernel': '6.1'},
    },
    'spdk': {'workload': {'numjobs': 2}, 'device': {'driver': 'vhost-user-scsi-pci'}},
    'qemu': {'device': {'driver': 'virtio-scsi-pci'}, 'host': {'shared_cpus': 'vcpu0 iothread'}},
    'counted': {'run': {'record': 'histogram'}},
    'reset': {'tmf': [{'at': '100us', 'function': 'lun_reset'}]},
    'plug': {'target': {'luns': 2}, 'device': {'hotplug': True}, 'hotplug': [PLUG]},
    'replay': {'workload': {'read_iolog': 'examples/oltp.blkparse.txt', 'number_ios': 50}},
}


def config_of(name):
    sections = {'workload': {}, **CONFIGS[name]}
    return load(**sections | {'workload': {'number_ios': 50, **sections['workload']}})


@pytest.fixture(scope='module')
def results():
    found = {name: run(config_of(name)) for name in CONFIGS}
    twice = load(workload={'number_ios': 50}, run={'replications': 2})
    return found | {'twice': replicate(twice, Here())}


def test_the_columns_of_requests_are_those_described(results):
    for name, result in results.items():
        if name != 'counted':
            assert list(result.requests.columns) == list(meanings.REQUESTS), name


def test_the_columns_of_histograms_are_those_described(results):
    assert list(results['counted'].histograms.columns) == list(meanings.HISTOGRAMS)


def test_every_metric_has_one_meaning(results):
    metrics = {m for result in results.values() for m in result.summary['metric']}
    for metric in metrics:
        found = [name for name in meanings.METRICS if meanings.matches(name, metric)]
        assert len(found) == 1, (metric, found)


def test_every_meaning_has_a_metric(results):
    metrics = {m for result in results.values() for m in result.summary['metric']}
    idle = [n for n in meanings.METRICS if not any(meanings.matches(n, m) for m in metrics)]
    assert idle == []


def test_every_key_of_a_report_is_described_and_the_other_way_round(results):
    keys = {key for result in results.values() for key in result.report}
    described = {name.partition('.')[0] for name in meanings.METRICS} | set(meanings.REPORT)
    assert keys == described


def test_the_trace_is_described_word_by_word():
    assert tuple(meanings.MOMENTS) == record.TIMESTAMPS
    assert tuple(meanings.FACTS) == record.FACTS
