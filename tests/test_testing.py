"""The scripted driver and device: what they add to the ring core."""

import pytest

from sim import testing
from sim.testing import RingError

REQUEST = {"out": [(0x200000, 51)], "in_": [(0x200040, 108)]}


def test_tokens_come_back_in_the_order_of_use():
    ring = testing.Ring()
    for token in ("a", "b"):
        ring.driver.add(**REQUEST, token=token)
    first, second = ring.device.fetch(), ring.device.fetch()
    ring.device.use(second)
    ring.device.use(first)
    assert ring.driver.reap() == ["b", "a"]


def test_a_picture_that_is_wrong_is_refused_and_says_what_is_there():
    ring = testing.Ring()
    ring.write(0x1000, "01 02 03")
    ring.expect("0x1000: 01 02 03")
    ring.expect("1000: 01 02 03")
    with pytest.raises(AssertionError, match="found at 0x1001: 02 03"):
        ring.expect("good 0x1000: 01\nbad  0x1001: 02 04   a comment of be ef")


def test_a_picture_without_any_bytes_is_a_mistake():
    with pytest.raises(ValueError, match="no line"):
        testing.Ring().expect("at 1000 01 02")


def test_rows_of_a_film_are_pictures():
    ring = testing.Ring()
    ring.driver.add(**REQUEST)
    ring.expect(str(ring.film()))


def test_the_film_shows_what_changed_and_nothing_else():
    ring = testing.Ring(num=4)
    ring.frame("nothing happened")
    ring.write(0x11000, "00 00 01 00")
    ring.frame("used.idx by hand")
    assert str(ring.film(first=2)).splitlines() == [
        "2. nothing happened",
        "3. used.idx by hand",
        "   used          0x00011000  00 00 *01 00" + 41 * " " + "idx 1",
        "   used[0]       0x00011004  00 00 00 00  00 00 00 00" + 29 * " " + "id 0 len 0",
    ]


def test_watched_memory_is_in_the_film():
    ring = testing.Ring()
    ring.watch("header", 0x200000, 51)
    ring.write(0x200030, "aa bb cc")
    ring.frame("header written")
    assert "header+48     0x00200030 *aa*bb*cc" in ring.film()


def test_a_table_leaves_the_film_when_its_request_is_reaped():
    ring = testing.Ring()
    ring.driver.add(**REQUEST, table=0x400000)
    assert "table[1]" in ring.film()
    ring.device.use(ring.device.fetch())
    ring.driver.reap()
    ring.write(0x400000, "ff")
    ring.frame("the allocator writes into it")
    assert str(ring.film(first=-1)).splitlines()[0].endswith("the allocator writes into it")
    assert "0x00400000" not in ring.film(first=-1)


@pytest.mark.parametrize("buffers", [0, 1025])
def test_a_request_has_buffers_but_not_too_many(buffers):
    with pytest.raises(ValueError, match="1 to 1024"):
        testing.Ring().driver.add(out=[(0x1000, 1)] * buffers)


def test_ring_error_is_an_os_error_with_the_errno():
    ring = testing.Ring(num=2)
    ring.driver.add(**REQUEST, table=0)
    with pytest.raises(RingError) as caught:
        ring.driver.add(**REQUEST, table=0)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == 28


def test_prices_charge_each_side_for_its_lines():
    free, priced = testing.Ring(), testing.Ring(prices=(1, 10, 100, 1000))
    for ring in (free, priced):
        ring.driver.add(**REQUEST)
        ring.device.fetch()
    assert free.driver.take_cycles() == free.device.take_cycles() == 0
    assert priced.driver.take_cycles() > 3000  # three lines that nobody had touched
    assert 300 <= priced.device.take_cycles() < 1000  # the same three, from the driver's core
    assert priced.device.take_cycles() == 0
