"""Where random I/O goes: each distribution against its definition, and the permutation."""

import math
from decimal import Decimal

import numpy as np
import pytest

from sim import machine, rng
from sim.config import ConfigError, load
from sim.costs import of_config
from sim.workload import job_fields as fields
from sim.workload import places, skew

DRAWS = 20_000
# Of DRAWS draws with probability p, the number varies by sqrt(DRAWS p (1 - p)): four of them.
SIGMAS = 4


def close(count: int, p: float, draws: int = DRAWS) -> bool:
    """Is the number of hits what a probability of `p` leads one to expect?"""
    return abs(count - draws * p) <= SIGMAS * math.sqrt(draws * p * (1 - p)) + 1


def chosen(count: int = DRAWS, **work) -> np.ndarray:
    """(lba, blocks, write) of the first I/Os of a job, without simulating it."""
    config = load(workload={'size': '64m', 'io_size': '1t'} | work)
    world = machine.build(config, of_config(config))
    j = np.uint64(world.plans[0].base)
    found = np.empty((count, 3), dtype=np.int64)
    percent = world.st[j + fields.J_WRITE_PERCENT]
    for index in range(count):
        write = int(rng.below(world.st[j + fields.J_KEY_MIX], index, 100) < percent)
        f = places.direction_of(j, write)
        found[index] = (*places.choose(world.st, j, np.uint64(f), index), write)
    return found


def ranks(places_count: int, lba: np.ndarray, offset: int) -> np.ndarray:
    """Ranks from places: fio's hash is one-to-one where the number of places is a power of two."""
    assert places_count & (places_count - 1) == 0
    unhash = pow(int(places.HASH), -1, 1 << 64)
    return np.array([(int(p) - offset) * unhash % places_count for p in lba // 8])


# ------------------------------------------------------------------------------------ permutation


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8, 9, 64, 100, 1023, 1025])
def test_a_permutation_visits_each_place_once(count):
    bits = rng.bits_below(count)
    for key in map(np.int64, (1, -5, 2**62)):
        assert sorted(rng.permute(key, i, count, bits) for i in range(count)) == list(range(count))


def test_permutations_of_two_keys_have_nothing_to_do_with_each_other():
    count = 4096
    a, b = ([rng.permute(key, i, count, 12) for i in range(count)] for key in (1, 2))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(count)
    assert abs(np.corrcoef(a, np.arange(count))[0, 1]) < 4 / math.sqrt(count)


def test_a_pass_of_random_io_covers_its_part_of_the_lun_and_the_next_is_another():
    laps = chosen(2 * 512, size='2m', offset='1g')[:, 0].reshape(2, 512)
    everything = list(range((1 << 30) // 512, (1 << 30) // 512 + 4096, 8))
    assert sorted(laps[0]) == sorted(laps[1]) == everything
    assert (laps[0] != laps[1]).mean() > 0.9


def test_norandommap_repeats_places_within_a_pass():
    lba = chosen(512, size='2m', norandommap=True)[:, 0]
    # 512 draws of 512 places hit 1 - 1/e of them.
    assert len(set(lba)) / 512 == pytest.approx(1 - 1 / math.e, abs=0.05)


# ------------------------------------------------------------------------------ zipf and pareto


def fio_zipf(u: float, theta: float, count: int, zeta: float) -> int:
    """The rank of fio's zipf_next() for a uniform u."""
    if u * zeta < 1:
        return 0
    if u * zeta < 1 + 0.5**theta:
        return 1
    eta = (1 - (2 / count) ** (1 - theta)) / (1 - (1 + 0.5**theta) / zeta)
    return int(count * (eta * u - eta + 1) ** (1 / (1 - theta)))


@pytest.mark.parametrize('theta', ['0.5', '0.99', '1.2', '2.5'])
@pytest.mark.parametrize('count', [1, 2, 3, 1000, 100_000])
def test_the_zipf_table_is_fios_function(theta, count):
    table = skew.zipf_table(Decimal(theta), count)
    zeta = math.fsum(i ** -float(theta) for i in range(1, count + 1))
    for step in range(1, 100):
        u = (step - 0.5) / 99.5
        rank = places.skewed_rank(table, 0, np.uint64(int(u * 2**64)))
        assert 0 <= rank < count
        if count > 2:
            expected = fio_zipf(u, float(theta), count, zeta)
            assert rank == pytest.approx(expected, rel=0.01, abs=1)


def test_the_zeta_sum_is_the_sum():
    for theta, count in (('0.3', 7), ('0.99', 5000), ('1.2', 40_000), ('3', 1000)):
        exact = math.fsum(i ** -float(theta) for i in range(1, count + 1))
        assert float(skew.zeta_of(Decimal(theta), count)) == pytest.approx(exact, rel=1e-13)


def test_zipf_shares_follow_the_power_law():
    found = chosen(rw='randread', random_distribution='zipf:1.2:0')[:, 0]
    count = (64 << 20) // 4096
    rank = ranks(count, found, 0)
    zeta = math.fsum(i**-1.2 for i in range(1, count + 1))
    for r in (0, 1):
        assert close(int((rank == r).sum()), (r + 1) ** -1.2 / zeta)
    # Beyond the first two, Gray's approximation is within 2 % of the law as a whole.
    law = math.fsum(i**-1.2 for i in range(1, 101)) / zeta
    assert (rank < 100).mean() == pytest.approx(law, abs=0.02)


def test_pareto_puts_eighty_percent_of_the_io_on_a_fifth():
    # h ** (ln (1 - h) / ln h) = 1 - h: that is what fio's pareto power means.
    found = chosen(random_distribution='pareto:0.2:0.25')[:, 0]
    count = (64 << 20) // 4096
    rank = ranks(count, found, count // 4)
    assert close(int((rank < 0.2 * (count - 1)).sum()), 0.8)
    assert close(int((rank < 0.04 * (count - 1)).sum()), 0.64)


def test_skewed_places_differ_by_seed_but_not_by_the_order_of_drawing():
    a, b, c = (chosen(500, random_distribution='zipf', randseed=seed)[:, 0] for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()


# ---------------------------------------------------------------------------- normal and zoned


@pytest.mark.parametrize(('deviation', 'spread'), [(0, 0), (20, 20)])
def test_normal_is_a_mean_of_twelve_moved_by_the_deviation(deviation, spread):
    found = chosen(random_distribution=f'normal:{deviation}')[:, 0]
    count = (64 << 20) // 4096
    rank = ranks(count, found, 0) / count
    # Twelve uniform numbers: variance 1/144; one more as wide as the deviation: its square / 12.
    sigma = math.sqrt(1 / 144 + (spread / 100) ** 2 / 12)
    assert rank.mean() == pytest.approx(0.5, abs=5 * sigma / math.sqrt(DRAWS))
    assert rank.std() == pytest.approx(sigma, rel=0.03)


def test_the_centre_of_a_normal_distribution_moves_it():
    count = (64 << 20) // 4096
    plain, moved = (
        chosen(2000, random_distribution=f'normal:5:{center}')[:, 0] // 8 for center in (0.5, 0.75)
    )
    assert ((plain + count // 4) % count == moved).all()


@pytest.mark.parametrize('form', ['zoned:60/10:30/20:10/70', 'zoned_abs:60/6m:30/13m:10/40m'])
def test_zones_get_their_share(form):
    part = chosen(random_distribution=form)[:, 0] * 512 / 2**20
    ends = [6.4, 19.2, 64] if form.startswith('zoned:') else [6, 19, 59]
    for low, high, share in zip([0, *ends], ends, (0.6, 0.3, 0.1), strict=False):
        inside = (part >= low - 0.004) & (part < high - 0.004)
        assert close(int(inside.sum()), share)
    assert part.max() < ends[-1]


def test_percentage_random_leaves_the_rest_in_sequence():
    found = chosen(percentage_random=30)
    follows = found[1:, 0] == found[:-1, 0] + found[:-1, 1]
    assert close(int(follows.sum()), 0.7, DRAWS - 1)


# ------------------------------------------------------------------------------------ sizes


def test_bssplit_gives_each_size_its_share():
    sizes = chosen(bssplit='4k/60:16k/30:64k/')[:, 1] * 512
    for size, share in ((4096, 0.6), (16384, 0.3), (65536, 0.1)):
        assert close(int((sizes == size).sum()), share)


def test_each_direction_may_have_its_own_sizes():
    found = chosen(rw='randrw', rwmixread=70, bs='4k,16k')
    assert close(int(found[:, 2].sum()), 0.3)
    assert set(found[found[:, 2] == 0, 1]) == {8}
    assert set(found[found[:, 2] == 1, 1]) == {32}
    # Places are as far apart as the direction's requests are long.
    assert (found[found[:, 2] == 1, 0] % 32 == 0).all()


def test_bsrange_takes_every_multiple_of_the_least_equally_often():
    sizes = chosen(bsrange='1k-4k')[:, 1]
    for blocks in (2, 4, 6, 8):
        assert close(int((sizes == blocks).sum()), 0.25)


def test_no_request_crosses_the_end_of_its_part():
    for work in (
        {'bsrange': '4k-60k'},
        {'bssplit': '4k/50:64k/50', 'random_distribution': 'zipf:0.9'},
        {'rw': 'read', 'bsrange': '512-9k'},
    ):
        found = chosen(3000, size='100k', offset='4k', **work)
        assert (found[:, 0] >= 8).all()
        assert (found[:, 0] + found[:, 1]).max() <= 8 + 200
        assert (found[:, 0] + found[:, 1]).max() > 8 + 170  # and its end is reached


def test_sequential_io_wraps_and_each_direction_has_a_place_of_its_own():
    found = chosen(300, rw='rw', size='128k')
    for write in (0, 1):
        mine = found[found[:, 2] == write, 0]
        assert (mine == 8 * (np.arange(len(mine)) % 32)).all()


@pytest.mark.parametrize(
    ('work', 'says'),
    [
        ({'bssplit': '4k/50:8k/40'}, 'add up to 90'),
        ({'bssplit': '4k/70:8k/40'}, 'add up to 110'),
        ({'bssplit': '4k/x'}, 'not a whole number'),
        ({'bssplit': '1000/50:4k/50'}, 'no multiple of 512'),
        ({'bsrange': '4k'}, 'not a range'),
        ({'bs': '4k,8k,16k,32k'}, 'has 4 values'),
        ({'bs': '4k,1m', 'rw': 'randrw'}, 'at most seg_max'),
        ({'random_distribution': 'zipf:1'}, 'theta of 1'),
        ({'random_distribution': 'zipf:0'}, 'zipf theta'),
        ({'random_distribution': 'pareto:1.5'}, 'pareto power'),
        ({'random_distribution': 'normal:100'}, 'deviation'),
        ({'random_distribution': 'zipf:1.2:2'}, 'centre'),
        ({'random_distribution': 'zip:1.2'}, 'none of random, zipf'),
        ({'random_distribution': 'zoned:50/10'}, 'add up to 50'),
        ({'random_distribution': 'zoned:50/10:50/80'}, 'disk add up to 90'),
        ({'random_distribution': 'zoned:100/100', 'rw': 'read'}, 'need random I/O'),
        ({'random_distribution': 'zoned_abs:100/9g'}, 'beyond'),
        ({'random_distribution': 'zoned:50/1:50/99', 'size': '64k'}, 'no room'),
        ({'offset': '8g'}, 'would begin at'),
        ({'offset': '1000'}, 'no multiple of 512'),
        ({'offset': '4g', 'offset_increment': '3g', 'numjobs': 3}, 'would begin at'),
        ({'offset': '4g', 'size': '5g'}, 'less the offset'),
        ({'size': '32k', 'bssplit': '4k/50:64k/50'}, 'does not fit'),
    ],
)
def test_what_makes_no_sense_is_refused(work, says):
    with pytest.raises(ConfigError) as caught:
        load(workload=work)
    assert says in str(caught.value)
    assert '\n' not in str(caught.value)
