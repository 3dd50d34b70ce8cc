"""How many requests a kick carries: one by one, plugged, and where a batch ends early."""

import pytest

from sim.run import run

SLOW = {"kind": "constant", "service": "300us", "lanes": 256}


def simulate(batch, *, iodepth=64, target=None, device=None, number_ios=640, **work):
    workload = {
        "iodepth": iodepth,
        "iodepth_batch_submit": batch,
        "iodepth_batch_complete_min": batch,
        "iodepth_batch_complete_max": batch,
        "number_ios": number_ios,
        "ioengine": "io_uring",
    }
    result = run(workload=workload | work, target=target or SLOW, device=device or {})
    assert result.violations == []
    return result.report, result.requests


def decisions(report):
    return report["kicks"] + report["kicks_suppressed"]


@pytest.mark.parametrize("ioengine", ["libaio", "io_uring"])
@pytest.mark.parametrize("batch", [4, 8, 32])
def test_a_plugged_batch_is_one_kick_decision(ioengine, batch):
    report, requests = simulate(batch, iodepth=batch, ioengine=ioengine)
    assert decisions(report) == 640 / batch
    # The worker sleeps when the next batch comes: every one is kicked, and its rows say by which.
    assert report["requests_per_kick"] == batch
    assert set(requests.groupby("kick").size()) == {batch}


@pytest.mark.parametrize("batch", [1, 2])
def test_one_or_two_are_not_plugged(batch):
    report, _ = simulate(batch, iodepth=batch)
    assert decisions(report) == 640


def test_a_plug_is_flushed_at_thirty_two():
    report, _ = simulate(64)  # BLK_MAX_REQUEST_COUNT: two decisions a batch
    assert decisions(report) == 640 / 32


def test_one_by_one_a_slow_disk_sees_about_one_request_a_kick():
    # Measured under a Linux guest with fio, which submits one by one: 1.0 at depth 1, 1.1 at depth
    # 4, 1.3 at depth 16 (QEMU 7.2, its userspace device, under emulation; for the sign alone).
    disk = {"kind": "exponential", "service": "300us", "lanes": 256}
    shallow, _ = simulate(1, iodepth=1, target=disk, number_ios=200)
    deep, _ = simulate(1, iodepth=16, target=disk, number_ios=1600)
    assert shallow["requests_per_kick"] == 1
    assert 1 < deep["requests_per_kick"] < 1.6


def test_a_busy_worker_is_not_kicked():
    null = {"kind": "null"}
    report, _ = simulate(8, target=null, number_ios=3200)
    assert report["requests_per_kick"] > 16
    # Without anybody's suppression every batch is a kick: the used flags alone do the same here.
    plain, _ = simulate(8, target=null, number_ios=3200, device={"event_idx": False})
    assert plain["requests_per_kick"] > 8


def test_a_batch_that_ends_early_is_kicked_for_what_it_has_published():
    # commit_rqs(): the LUN takes three, the other five of a plugged batch wait in the block layer.
    report, requests = simulate(8, iodepth=8, device={"cmd_per_lun": 3}, number_ios=80)
    assert report["requests_requeued"] > 0
    assert set(requests["outcome"]) == {"ok"}
    first = requests.sort_values("t_avail_ns")["t_kick_ns"].iloc[:3]
    assert first.max() < 60_000  # long before the disk has done any of them


def test_a_full_ring_forces_a_kick():
    # virtqueue_add_split() notifies when a chain does not fit, whatever the batch's end says.
    device = {"virtqueue_size": 8, "indirect_desc": False}
    report, requests = simulate(8, iodepth=8, device=device, number_ios=80)
    assert report["requests_requeued"] > 0
    assert set(requests["outcome"]) == {"ok"}
