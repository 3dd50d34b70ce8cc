"""More jobs than vCPUs: threads that share one, as a Linux guest lets them."""

import pytest

from sim.config import load
from sim.engine import ENGINES
from sim.run import run

SLOW = {"kind": "exponential", "service": "80us"}


def simulate(engine="compiled", vcpus=1, target=None, costs=None, guest=None, device=None, **work):
    jobs = {"numjobs": 4, "iodepth": 1, "number_ios": 60}
    return run(
        workload=jobs | work,
        guest={"vcpus": vcpus} | (guest or {}),
        target=target or SLOW,
        device=device or {},
        costs=costs or {},
        run={"engine": engine},
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("numjobs", "vcpus"), [(4, 1), (5, 2), (3, 3)])
def test_every_thread_comes_to_its_end(engine, numjobs, vcpus):
    result = simulate(engine, vcpus, numjobs=numjobs)
    assert result.violations == []
    assert list(result.requests.groupby("clone").size()) == [60] * numjobs
    assert set(result.requests["queue"]) == set(range(vcpus))
    assert (result.report["context_switches"] > 0) == (numjobs > vcpus)


def test_a_thread_that_sleeps_gives_the_cpu_away():
    alone = simulate(numjobs=1).report["iops"]
    four = simulate(numjobs=4).report["iops"]
    # A little more than four times as much: the vCPU halts for shorter and is polled for longer.
    assert 3.4 * alone < four < 4.6 * alone


def test_threads_that_need_the_cpu_share_it():
    # A disk that takes no time: one vCPU does as many I/Os for four threads as for one, or fewer.
    null = {"kind": "null"}
    work = {"iodepth": 8, "number_ios": 400, "iodepth_batch_submit": 4}
    one = simulate(target=null, numjobs=1, **work).report
    four = simulate(target=null, numjobs=4, **work).report
    assert four["iops"] < 1.3 * one["iops"]
    two = simulate(target=null, numjobs=4, vcpus=4, **work).report
    assert two["iops"] > 1.5 * four["iops"]


def test_a_switch_costs_what_the_preset_says():
    free, dear = (
        simulate(iodepth=4, costs={"guest.context_switch": price}, target={"kind": "null"})
        for price in ("0ns", "5us")
    )
    assert dear.report["context_switches"] > 50
    assert dear.report["iops"] < 0.9 * free.report["iops"]
    # With a vCPU each there is nothing to switch.
    one, other = (
        simulate(numjobs=2, vcpus=2, costs={"guest.context_switch": price})
        for price in ("0ns", "5us")
    )
    assert one.report["event_digest"] == other.report["event_digest"]


def test_a_thread_that_never_sleeps_gives_way_after_its_slice():
    # The disk takes no time and the host is quicker than the guest: there is always something to
    # reap, and without a slice the second thread would wait for the end of the first.
    work = {"numjobs": 2, "iodepth": 64, "number_ios": 500}
    for slice_, shared in (("200us", True), ("9s", False)):
        result = simulate(target={"kind": "null"}, costs={"guest.sched_slice": slice_}, **work)
        first, second = (rows for _, rows in result.requests.groupby("clone"))
        assert (second["t_submit_ns"].min() < first["t_submit_ns"].max()) == shared
        assert result.violations == []


def test_threads_wait_for_tags_of_the_queue_that_they_share():
    result = simulate(
        numjobs=3, iodepth=8, iodepth_batch_submit=8, iodepth_batch_complete_max=8,
        device={"virtqueue_size": 8},
    )  # fmt: skip
    assert result.violations == []
    assert len(result.requests) == 180


def test_timers_of_threads_that_are_not_in_hand_go_off():
    work = {"thinktime": "400us", "number_ios": 20}
    alone = simulate(numjobs=1, **work).report["simulated_seconds"]
    four = simulate(numjobs=4, **work).report["simulated_seconds"]
    assert alone < four < 1.1 * alone


def test_a_job_behind_a_stonewall_begins_when_those_before_it_are_done():
    config = load(
        job=[
            {"name": "one", "numjobs": 2, "number_ios": 30},
            {"name": "two", "numjobs": 3, "number_ios": 30, "stonewall": True},
        ],
        guest={"vcpus": 1},
        target=SLOW,
    )
    result = run(config)
    assert result.violations == []
    ends = result.requests[result.requests["job"] == "one"]["t_complete_ns"].max()
    assert result.requests[result.requests["job"] == "two"]["t_submit_ns"].min() > ends


@pytest.mark.parametrize("engine", ENGINES)
def test_polling_threads_take_turns(engine):
    result = simulate(
        engine, vcpus=2, numjobs=4, iodepth=2, ioengine="io_uring", hipri=True,
        guest={"poll_queues": 1}, costs={"guest.sched_slice": "50us"},
    )  # fmt: skip
    assert result.violations == []
    assert len(result.requests) == 240
    assert result.report["context_switches"] > 10


def test_an_open_loop_among_others_keeps_its_times():
    config = load(
        job=[
            {"name": "open", "io_submit_mode": "offload", "rate_iops": 5000, "iodepth": 8,
             "number_ios": 60},
            {"name": "closed", "iodepth": 2, "number_ios": 200},
        ],
        guest={"vcpus": 1},
        target=SLOW,
    )  # fmt: skip
    result = run(config)
    assert result.violations == []
    served = result.requests[result.requests["job"] == "open"]
    assert (served["t_submit_ns"] - served["t_arrive_ns"]).median() < 10_000
