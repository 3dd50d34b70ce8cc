"""The yardsticks of benchmarks/ring.py are right ones, whatever they measure."""

import shutil

import numpy as np
import pytest

import sim.__main__
from benchmarks import ring as bench

KINDS = [(packed, shape) for packed in (False, True) for shape in bench.SHAPES]


@pytest.fixture(scope="module")
def twins():
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return bench.twins()


@pytest.mark.parametrize(("packed", "shape"), KINDS)
def test_the_c_twin_leaves_the_same_bytes_behind(packed, shape, twins):
    """After more than a lap of the 16-bit indices, and with the same checksum of all results."""
    ring = bench.ring_of(packed, shape)
    run, mem = twins.new(packed, shape, ring)
    assert bench.run_ours(ring, 100) == run(100)
    assert np.array_equal(ring.mem, mem)
    assert bench.run_ours(ring, 70_000) == run(70_000)
    assert np.array_equal(ring.mem, mem)
    assert ring.mem.any()


def test_a_twin_that_does_something_else_would_be_noticed(twins):
    ring = bench.ring_of(False, "1desc")
    run, mem = twins.new(False, "3desc", ring)
    bench.run_ours(ring, 10)
    run(10)
    assert not np.array_equal(ring.mem, mem)


def test_line_transfers_are_counted_and_the_same_every_time():
    table = bench.line_transfers()
    assert table == bench.line_transfers()
    assert table["lines.packed_batch1"] < table["lines.split_batch1"]
    assert table["lines.packed_batch32"] < table["lines.split_batch32"]
    assert table["lines.packed_in_order_batch32"] < table["lines.packed_batch32"]
    assert table["lines.split_in_order_batch32"] < table["lines.split_batch32"]


def test_without_gcc_the_ratios_to_c_are_none(monkeypatch, capsys):
    monkeypatch.setattr(bench, "PAIRS", 1)
    monkeypatch.setattr(bench, "LOOPS", 10)
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    table = bench.measure(1, 0)
    assert "no gcc" in capsys.readouterr().err
    assert table["ring.split_1desc_vs_c"] is None
    assert table["ring.packed_vs_c"] is None
    assert table["ring.packed_vs_split"] > 0
    assert "not measured" in bench.explain(table)


def test_bench_needs_a_checkout(monkeypatch, capsys, tmp_path):
    place = tmp_path / "sim" / "commands" / "bench.py"
    monkeypatch.setattr(sim.commands.bench, "__file__", str(place))
    assert sim.__main__.main(["bench"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "not a checkout" in err
