"""Several LUNs and targets: how they are written, and that each is a disk of its own."""

import pytest

from sim.analysis.bounds import bounds
from sim.config import ConfigError, from_effective, load
from sim.formats.disks import disk_presets, load_disk
from sim.run import run


def job(name, lun=0, **more):
    return {"name": name, "lun": lun, "number_ios": 150, "iodepth": 4} | more


TWO = {
    "job": [job("a"), job("b", 1)],
    "target": {"luns": 2, "size": "64m"},
}


def places(config):
    return [(lun.target, lun.number, lun.disk.kind) for lun in config.disks]


def test_luns_alike():
    config = load(**TWO)
    assert places(config) == [(0, 0, "constant"), (0, 1, "constant")]
    assert [config.lun_of(work) for work in config.jobs] == [0, 1]
    assert config.effective()["target"]["luns"] == 2
    assert "lun" not in config.effective()
    assert places(load(target={"luns": 2}, device={"boot_tpgt": 5})) == [
        (5, 0, "constant"), (5, 1, "constant"),
    ]  # fmt: skip


MIXED = """
[target]
kind = "ssd"
size = "256m"
dies = 4

[[lun]]

[[lun]]
number = 7
dies = 8

[[lun]]
target = 3
kind = "null"

[[lun]]
target = 3
disk = "A PRESET"
size = "1g"

[[job]]
lun = 7

[[job]]
target = 3
lun = 1
"""


def test_luns_in_tables(tmp_path):
    path = tmp_path / "luns.toml"
    disk = next(name for name in disk_presets() if load_disk(name)["target"]["kind"] == "hdd")
    path.write_text(MIXED.replace("A PRESET", disk))
    config = load(toml=path)
    assert places(config) == [(0, 0, "ssd"), (0, 7, "ssd"), (3, 0, "null"), (3, 1, "hdd")]
    assert [lun.disk.dies for lun in config.disks[:2]] == [4, 8]
    assert [lun.disk.size >> 20 for lun in config.disks] == [256, 256, 256, 1024]
    assert [config.lun_of(work) for work in config.jobs] == [1, 3]
    again = tmp_path / "again.toml"
    again.write_text(config.to_toml())
    assert load(toml=again) == config
    assert from_effective(config.effective()) == config
    assert load(toml=again).id == config.id


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"lun": [{}], "target": {"luns": 2}}, "target.luns: there are [[lun]] tables"),
        ({"lun": [{"number": 1}, {"number": 1}]}, "LUN 1 of target 0 is there twice"),
        ({"lun": [{"number": 16384}]}, "out of range: 0 to 16383"),
        ({"lun": [{"target": 256}]}, "out of range: 0 to 255"),
        ({"lun": [{"luns": 2}]}, "no key 'luns' in lun"),
        ({"lun": {}}, "write [[lun]]"),
        ({"lun": [{"kind": "null", "dies": 4}]}, "dies has no meaning for kind null"),
        ({"lun": [{"size": 1000}]}, "out of range"),
        ({"target": {"luns": 0}}, "out of range: 1 to 256"),
        ({"target": {"luns": 256, "size": "8g"}}, "make them smaller"),
        ({"workload": {"lun": 1}}, "target 0 has no such LUN; there is LUN 0 of target 0"),
        ({"workload": {"target": 1}}, "target 1 has no such LUN"),
        ({"lun": [{"size": "1m"}], "workload": {"size": "2m"}}, "is above"),
    ],
)
def test_luns_that_cannot_be(sections, message):
    with pytest.raises(ConfigError) as error:
        load(**sections)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_set_has_no_single_lun():
    with pytest.raises(ConfigError, match=r"write target\.kind, for all luns"):
        load(sets=["lun.kind=null"])


MANY = {
    "two alike": TWO,
    "two targets": {
        "job": [job("a", rw="randrw"), job("b", 2, target=9, rw="randrw", bs="16k")],
        "lun": [{"size": "8m"}, {"target": 9, "number": 2, "kind": "null", "size": "8m"}],
    },
    "one job on each of four": {
        "job": [job(f"j{n}", n, rw="randwrite") for n in range(4)],
        "target": {"luns": 4, "size": "4m", "kind": "lanes", "serial": "3us", "lanes": 2},
    },
    "throttled": {
        "job": [job("a", rw="randwrite", iodepth=32), job("b", 1, rw="randrw", iodepth=32)],
        "target": {"luns": 2, "size": "64m"},
        "host": {"kernel": "6.1"},
    },
    "few queues, short queues": {
        "job": [job("a", rw="randrw", iodepth=16), job("b", 1, rw="randrw", iodepth=16)],
        "target": {"luns": 2, "size": "1m"},
        "device": {"num_queues": 1, "cmd_per_lun": 3, "virtqueue_size": 16},
    },
}


@pytest.mark.parametrize("name", MANY)
def test_both_engines_serve_them_and_nothing_is_broken(name):
    found = [run(**MANY[name], sets=[f"run.engine={engine}"]) for engine in ("compiled", "simpy")]
    assert found[0].violations == []
    assert found[0].report["digest"] == found[1].report["digest"]
    assert found[0].report["requests_completed"] == 150 * len(MANY[name]["job"])
    if name == "throttled":
        assert found[0].report["wbt_waits"] > 0


def test_a_slow_lun_leaves_a_quick_one_alone():
    sections = {
        "job": [job("quick", number_ios=2000), job("slow", 1, number_ios=20)],
        "lun": [{"service": "80us"}, {"service": "10ms"}],
        "run": {"warmup": "off"},
    }
    both = run(**sections).report["jobs"]
    alone = run(job=[job("quick", number_ios=2000)], run={"warmup": "off"}).report["jobs"]
    quick, slow = both["quick"]["latency_ns"], both["slow"]["latency_ns"]
    assert slow["mean"] > 10_000_000
    assert quick["mean"] == pytest.approx(alone["quick"]["latency_ns"]["mean"], rel=0.05)


def test_disks_draw_numbers_of_their_own():
    exponential = {"kind": "exponential", "luns": 2, "size": "64m"}
    work = [job("a", randseed=5), job("b", 1, randseed=5)]
    report = run(job=work, target=exponential, run={"warmup": "off"}).report["jobs"]
    assert report["a"]["latency_ns"]["mean"] != report["b"]["latency_ns"]["mean"]


def test_what_one_lun_holds_another_does_not():
    """A reads what B has written at the same place of another LUN: data() would find it."""
    work = [
        job("w", rw="write", size="1m", number_ios=256),
        job("r", 1, rw="read", size="1m", number_ios=256, stonewall=True),
    ]
    result = run(job=work, target={"luns": 2, "size": "1m"})
    assert result.violations == []


def test_no_run_beats_the_bounds():
    for name in ("two alike", "two targets"):
        config = load(**MANY[name])
        most, least = bounds(config)
        report = run(config).report
        assert report["iops"] < most
        assert report["latency_ns"]["mean"] / 1e9 > least
