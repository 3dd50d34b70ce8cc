"""--fio-json and --fio-logs against files of fio's own, and read by fio-plot."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sim.__main__ import main
from sim.analysis import fio_json, fio_logs, fio_times
from sim.config import ConfigError, load
from sim.exports import fio as fio_output
from sim.formats import fio, fio_options
from sim.histogram import MIDPOINT_NS
from sim.run import run

HERE = Path(__file__).resolve().parent / 'fio'
JOBS = HERE / 'groups.fio'
RECORDED = json.loads((HERE / 'groups.fio-3.33.json').read_text())
DIRECTIONS = ('read', 'write', 'trim', 'sync', 'mixed')


def options(**given):
    return SimpleNamespace(
        **{'fio': None, 'sets': [], 'fio_json': None, 'fio_logs': None, 'fio_format': None, **given}
    )


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Our run of the recorded job file: the result, and the file that it became."""
    place = tmp_path_factory.mktemp('fio') / 'ours.json'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('FIO_ENGINE', 'libaio')
        result = run(load(fio=JOBS, sets=['run.warmup=off']))
        fio_output.write(result, options(fio=JOBS, fio_json=str(place), fio_format='json+'))
    return result, json.loads(place.read_text())


# A percentile or a bin is there if there was an I/O; which bins is a matter of how fast.
def keys_of(value, path=''):
    """Every path of keys in a document, bins left out."""
    if isinstance(value, dict):
        found = {f'{path}.{key}' for key in value if not path.endswith('.bins')}
        for key, inner in value.items():
            found |= keys_of(inner, f'{path}.{key}')
        return found if not path.endswith('.bins') else set()
    return set()


def latencies(document):
    """Each latency object of a document, with job and name."""
    for job in document['jobs']:
        for direction in DIRECTIONS:
            for kind in ('slat_ns', 'clat_ns', 'lat_ns'):
                if kind in job.get(direction, {}):
                    yield f'{job["jobname"]}.{direction}.{kind}', job[direction][kind]


def same_keys(ours, theirs):
    assert [(j['jobname'], j['groupid']) for j in ours['jobs']] == [
        (j['jobname'], j['groupid']) for j in theirs['jobs']
    ]
    for mine, other in zip(ours['jobs'], theirs['jobs'], strict=True):
        # The null engine has no slat at iodepth 1, and no device is asked for a flush here.
        keys, wanted = (
            {key for key in keys_of(job) if not re.match(r'\.sync\.lat_ns\.|\.job options\.', key)}
            for job in (mine, other)
        )
        assert keys == wanted
        assert mine['job options'].items() >= other['job options'].items()
        assert mine['latency_depth'] == other['latency_depth']
    top = {key for key in ours if key != 'vhost-scsi-sim'}
    assert top == set(theirs)
    options = {k: v for k, v in ours['global options'].items() if k != 'ioengine'}
    assert options == {k: v for k, v in theirs['global options'].items() if k != 'ioengine'}


def test_keys_jobs_and_groups_are_those_of_a_recorded_fio(written):
    assert RECORDED['fio version'] == 'fio-3.33'
    same_keys(written[1], RECORDED)


def test_keys_jobs_and_groups_are_those_of_the_fio_that_is_installed(written, tmp_path):
    program = shutil.which('fio')
    if program is None:
        pytest.skip('fio is not installed (Debian package fio)')
    place = tmp_path / 'theirs.json'
    command = [program, '--output-format=json+', f'--output={place}', str(JOBS)]
    subprocess.run(
        command, check=True, cwd=tmp_path, env={**os.environ, 'FIO_ENGINE': 'null'}, timeout=300
    )
    theirs = json.loads(place.read_text())
    if theirs['fio version'] != RECORDED['fio version']:
        pytest.skip(f'{theirs["fio version"]} may have other keys than fio-3.33')
    same_keys(written[1], theirs)


def test_bins_and_percentiles_follow_the_rule_of_fio():
    midpoints = {str(int(ns)): place for place, ns in enumerate(MIDPOINT_NS)}
    seen = 0
    for name, found in latencies(RECORDED):
        if not found['N'] or 'bins' not in found:
            continue
        counts = np.zeros(len(MIDPOINT_NS), dtype=np.int64)
        for key, number in found['bins'].items():
            counts[midpoints[key]] += number  # each of fio's bins is one of ours
        assert counts.sum() == found['N'], name
        shares = [float(key) for key in found['percentile']]
        assert fio_json.percentiles(counts, shares) == found['percentile'], name
        seen += 1
    assert seen >= 10


def test_the_ladders_of_latency_are_of_clat_as_in_fio():
    for job in RECORDED['jobs']:
        directions = ['mixed'] if 'read' not in job else ['read', 'write']
        objects = [job[d]['clat_ns'] for d in directions]
        if not all('bins' in o for o in objects if o['N']):
            continue
        times = [
            int(key)
            for o in objects
            for key, number in o.get('bins', {}).items()
            for _ in range(number)
        ]
        ours = fio_json.ladders(np.array(times, dtype=np.int64))
        for name, row in ours.items():
            assert list(row) == list(job[name])
            for key, share in row.items():
                # The bucket that a step falls in is counted by its midpoint here.
                assert share == pytest.approx(job[name][key], abs=6), (name, key)


def test_numbers_are_those_of_the_request_table(written):
    result, document = written
    jobs = {job['jobname']: job for job in document['jobs']}
    table = result.requests
    reads = table[table['job'] == 'reads']
    read = jobs['reads']['read']
    assert read['total_ios'] == len(reads) == 300
    assert read['io_bytes'] == reads['bytes'].sum()
    assert read['lat_ns']['mean'] == pytest.approx(reads['fio_lat_ns'].mean())
    assert read['lat_ns']['max'] == reads['fio_lat_ns'].max()
    span = reads['t_reap_ns'].max() - reads['t_arrive_ns'].min()
    assert read['bw_bytes'] == reads['bytes'].sum() * 10**9 // span
    assert sum(read['clat_ns']['bins'].values()) == 300
    for job in document['jobs']:
        for direction in DIRECTIONS[:2]:
            if direction in job:
                parts = [job[direction][f'{kind}_ns']['mean'] for kind in ('slat', 'clat', 'lat')]
                assert parts[0] + parts[1] == pytest.approx(parts[2])
    # A group of two clones and two jobs: their requests together, their samples added up.
    joined = jobs['alone']['read']
    assert joined['total_ios'] == 900
    assert joined['iops_mean'] == pytest.approx(joined['iops'], rel=0.05)
    assert joined['iops_samples'] == 30
    assert jobs['reads']['iodepth_level']['8'] > 25
    assert jobs['mixed']['mixed']['total_ios'] == 300


def test_flushes_are_fios_syncs(tmp_path):
    place = tmp_path / 'a.json'
    result = run(
        load(
            workload={'rw': 'randwrite', 'fsync': 8, 'number_ios': 64},
            target={'kind': 'hdd', 'write_cache': '16m'},
        )
    )
    fio_output.write(result, options(fio_json=str(place)))
    (job,) = json.loads(place.read_text())['jobs']
    flushes = result.requests[result.requests['op'] == 'flush']
    assert job['sync']['total_ios'] == len(flushes) > 0
    assert job['sync']['lat_ns']['max'] == flushes['fio_lat_ns'].max()
    assert job['write']['total_ios'] == 64


def test_every_option_of_fio_is_known():
    if shutil.which('fio') is None:
        pytest.skip('fio is not installed (Debian package fio)')
    version = subprocess.run(['fio', '--version'], capture_output=True, text=True).stdout.strip()
    if version != RECORDED['fio version']:
        pytest.skip(f'{version} may have other options than fio-3.33')
    told = subprocess.run(['fio', '--cmdhelp=all'], capture_output=True, text=True, timeout=300)
    names = set(re.findall(r'^([a-z][a-z0-9_-]*) *:', told.stdout, re.MULTILINE))
    known = {*fio.HONOURED, *fio.ALIASES, *fio.NOTED, *fio.NOT_MODELLED, 'direct', 'buffered'}
    assert len(names) > 100
    assert names - known - set(fio_options.READERS) == set()


# --------------------------------------------------------------------------------------------- logs


def logs_of(result, fio, sets=()):
    _, jobs = fio_output.options_of(result.config, fio, sets)
    clones = fio_times.clones_of(result.config, result.requests)
    found = fio_logs.logs(result.config, jobs, clones)
    return {
        name: [tuple(map(int, line.split(', '))) for line in lines] for name, lines in found.items()
    }


def test_a_log_has_a_line_for_each_request(written, monkeypatch):
    monkeypatch.setenv('FIO_ENGINE', 'libaio')
    logs = logs_of(written[0], JOBS)
    assert len(logs) == 5 * 8  # kinds, clones
    table = written[0].requests
    reads = table[table['clone'] == 0].sort_values(['t_reap_ns', 'serial'])
    lines = logs['randread-iodepth-8-numjobs-1_lat.1.log']
    assert [line[1] for line in lines] == reads['fio_lat_ns'].tolist()
    began = reads['t_arrive_ns'].min()
    assert [line[0] for line in lines] == ((reads['t_reap_ns'] - began) // 10**6).tolist()
    assert {line[2:] for line in lines} == {(0, 4096, 0)}
    pieces = [logs[f'randread-iodepth-8-numjobs-1_{kind}.1.log'] for kind in ('slat', 'clat')]
    assert [a[1] + b[1] for a, b in zip(*pieces, strict=True)] == [line[1] for line in lines]
    clat = pieces[1][0][1]
    assert logs['randread-iodepth-8-numjobs-1_bw.1.log'][0][1] == 4096 * 10**6 // clat
    mixed = logs['randrw-iodepth-2-numjobs-2_iops.7.log']
    assert {line[2] for line in mixed} == {0, 1}
    assert {line[1] for line in mixed} == {1}


def test_windows_names_and_the_histogram_are_as_the_job_file_says(tmp_path):
    path = tmp_path / 'a.fio'
    path.write_text(
        '[j]\nioengine=libaio\nrw=randread\nnumber_ios=300\niodepth=2\nwrite_lat_log=a\n'
        'write_bw_log\nwrite_iops_log=b\nwrite_hist_log=h\nlog_hist_msec=5\n'
        'log_hist_coarseness=3\nlog_avg_msec=4\nlog_offset=1\nper_job_logs=0\nnumjobs=2\n'
    )
    result = run(load(fio=path))
    logs = logs_of(result, path)
    names = 'a_slat.log a_clat.log a_lat.log j_bw.log b_iops.log h_clat_hist.log'
    assert sorted(logs) == sorted(names.split())
    table = result.requests
    assert sum(sum(line[3:]) for line in logs['h_clat_hist.log']) == len(table) == 600
    assert {len(line) for line in logs['h_clat_hist.log']} == {3 + 1856 // 8}
    # The mean of the first window of each clone, with the request that ends it.
    first = table[table['clone'] == 0].sort_values(['t_reap_ns', 'serial'])
    ms = (first['t_reap_ns'] - first['t_arrive_ns'].min()) // 10**6
    end = int((ms < 4).sum()) + 1
    mean = int(first['fio_lat_ns'].iloc[:end].mean())
    assert (int(ms.iloc[end - 1]), mean, 0, 0, 0, 0) in logs['a_lat.log']
    # Whole windows only, and the requests in them.
    inside = int((first['t_reap_ns'] - first['t_arrive_ns'].min() < 4_000_000).sum())
    assert (4, inside * 250, 0, 0, 0, 0) in logs['b_iops.log']
    assert (4, inside * 4 * 250, 0, 0, 0, 0) in logs['j_bw.log']


def test_averages_by_hand():
    when, values = np.array([0, 1, 4, 5, 9, 9]), np.array([10, 20, 60, 4, 6, 8])
    found = list(fio_logs.averages(when, values, 4, end=9, most=False))
    assert found == [(4, 30), (9, 5), (9, 8)]
    assert list(fio_logs.averages(when, values, 4, end=9, most=True)) == [(4, 60), (9, 6), (9, 8)]


# ---------------------------------------------------------------------------------------- fio-plot


def plotted(tmp_path, *arguments):
    out = tmp_path / 'out.png'
    out.unlink(missing_ok=True)
    command = [sys.executable, '-m', 'fio_plot', '-T', 'ours', '-r', 'randread', '-o', str(out)]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, 'MPLBACKEND': 'Agg'},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert out.exists(), done.stdout + done.stderr
    return out.stat().st_size


@pytest.mark.skipif(not importlib.util.find_spec('fio_plot'), reason='fio-plot is not installed')
def test_fio_plot_draws_our_files_as_they_are(tmp_path, capsys):
    files, logs = tmp_path / 'json', tmp_path / 'logs'
    files.mkdir()
    for depth in (1, 2, 4):
        code = main(
            f'run --set workload.iodepth={depth} --set workload.number_ios=300 --json '
            f'--fio-json {files}/{depth}.json --fio-logs {logs}'.split()
        )
        assert code == 0
    capsys.readouterr()
    charts = ('-l', '-L -t iops', '-H -d 2 -n 1', '-N -d 1')
    sizes = [plotted(tmp_path, '-i', str(files), *chart.split()) for chart in charts]
    chart = '-g -t lat bw iops -d 1 2 4 -n 1'
    sizes.append(plotted(tmp_path, '-i', str(logs), *chart.split()))
    assert min(sizes) > 10_000  # an empty figure is smaller


# ------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ('sets', 'given', 'problem'),
    [
        (['run.record=histogram'], {'fio_json': 'a.json'}, 'needs every request'),
        (['run.replications=2'], {'fio_logs': 'a'}, 'of one run'),
        ([], {'fio_json': 'no/such/a.json'}, 'folder does not exist'),
        ([], {'fio_format': 'json+'}, 'no meaning without --fio-json'),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run(sets, given, problem, tmp_path):
    if 'fio_json' in given and 'no/' not in given['fio_json']:
        given = {'fio_json': str(tmp_path / given['fio_json'])}
    with pytest.raises(ConfigError, match=problem):
        fio_output.check(load(sets=sets), options(**given))


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(ConfigError, match='is a folder'):
        fio_output.check(load(), options(fio_json=str(tmp_path)))
    with pytest.raises(ConfigError, match='is a file'):
        fio_output.check(load(), options(fio_logs=str(tmp_path / 'a')))


@pytest.mark.parametrize(
    ('line', 'problem'),
    [
        ('percentile_list=0:50', 'no list of up to 20'),
        ('unified_rw_reporting=yes', 'none of none, mixed, both'),
        ('log_hist_coarseness=7', 'whole number from 0 to 6'),
        ('write_lat_log=../a', 'write a name'),
        ('lat_percentiles=maybe', 'neither 1 nor 0'),
    ],
)
def test_a_wrong_option_of_the_report_is_refused_with_its_line(tmp_path, line, problem):
    path = tmp_path / 'a.fio'
    path.write_text(f'[j]\nrw=read\n{line}\n')
    with pytest.raises(ConfigError, match=f'a.fio:3: .*{problem}'):
        load(fio=path)
