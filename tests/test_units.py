"""Sizes and times as people write them, and cycles without a float."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ConfigError
from sim.units import (
    cycles_to_ns,
    format_size,
    format_time,
    ns_to_cycles,
    parse_size,
    parse_time_ns,
)

HZ = st.integers(100_000_000, 9_000_000_000)


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        ('512', 512),
        ('0x1000', 4096),
        ('4k', 4096),
        ('4K', 4096),
        ('4kb', 4096),
        ('4b', 4),
        ('4ki', 4000),
        ('4KiB', 4000),
        ('1m', 1 << 20),
        ('2G', 2 << 30),
        ('1t', 1 << 40),
        ('1p', 1 << 50),
    ],
)
def test_sizes_follow_fio_with_1024_for_k_and_1000_for_ki(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize('text', ['', 'k', '4q', '-4k', '1.5k', '4 k', '4i', '0xg', 'nan', '४'])
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ConfigError, match='is not a size'):
        parse_size(text)


@pytest.mark.parametrize(
    ('text', 'unit', 'ns'),
    [
        ('80us', None, 80_000),
        ('8.9us', None, 8_900),
        ('8.9µs', None, 8_900),
        ('.5 ms', None, 500_000),
        ('60', 's', 60_000_000_000),
        ('7', 'us', 7_000),
        ('2M', 's', 120_000_000_000),
        ('1h', None, 3_600_000_000_000),
        ('1d', None, 86_400_000_000_000),
        ('3usec', None, 3_000),
        ('0', None, 0),
    ],
)
def test_times_are_exact_nanoseconds(text, unit, ns):
    assert parse_time_ns(text, unit) == ns


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('', 'is not a time'),
        ('-1s', 'is not a time'),
        ('1e3s', 'is not a time'),
        ('nan', 'is not a time'),
        ('4k', 'no unit of time'),
        ('80', 'has no unit'),
        ('0.5ns', 'no whole number of nanoseconds'),
    ],
)
def test_what_is_not_a_time_is_refused(text, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_time_ns(text)


def test_times_print_in_the_largest_unit_that_is_not_above():
    printed = [format_time(ns) for ns in (0, 999, 1000, 8_900, 80_000, 1_500_000, 90 * 10**9)]
    assert printed == ['0ns', '999ns', '1us', '8.9us', '80us', '1.5ms', '90s']


@given(st.integers(0, 2**63 - 1))
def test_a_printed_time_or_size_reads_back(value):
    assert parse_time_ns(format_time(value)) == value
    assert parse_size(format_size(value)) == value


@given(st.integers(0, 2**63 - 1), HZ)
def test_cycles_to_ns_is_the_exact_quotient_rounded_down(cycles, hz):
    assert cycles_to_ns(cycles, hz) == cycles * 10**9 // hz


@given(st.integers(0, 10**18), HZ)
def test_ns_to_cycles_rounds_halves_up(ns, hz):
    assert ns_to_cycles(ns, hz) == (2 * ns * hz + 10**9) // (2 * 10**9)


@given(st.lists(st.integers(0, 2**62), min_size=1), HZ)
def test_int64_arrays_give_the_same_numbers_as_ints(cycles, hz):
    # 2**62 cycles fit in int64 nanoseconds from 0.5 GHz on.
    hz = max(hz, 600_000_000)
    ns = cycles_to_ns(np.array(cycles, dtype=np.int64), hz)
    assert ns.dtype == np.int64
    assert ns.tolist() == [cycles_to_ns(value, hz) for value in cycles]


@given(st.lists(st.integers(0, 10**18), min_size=1), HZ)
def test_int64_arrays_of_ns_give_the_same_cycles_as_ints(ns, hz):
    cycles = ns_to_cycles(np.array(ns, dtype=np.int64), hz)
    assert cycles.tolist() == [ns_to_cycles(value, hz) for value in ns]
