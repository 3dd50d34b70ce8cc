"""Poll queues: threads that look for their completions instead of sleeping."""

import numpy as np
import pytest

from sim.config import ConfigError, load
from sim.engine import ENGINES
from sim.run import run

DISK = {"kind": "exponential", "service": "20us"}


def simulate(engine="compiled", poll_queues=2, device=None, costs=None, guest=None, **workload):
    work = {"number_ios": 150, "iodepth": 4, "numjobs": 4, "ioengine": "io_uring", "hipri": True}
    return run(
        workload=work | workload,
        target=DISK,
        guest={"poll_queues": poll_queues} | (guest or {}),
        device=device or {},
        costs=costs or {},
        run={"engine": engine},
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_polled_io_needs_no_interrupt_and_breaks_no_rule(engine):
    result = simulate(engine)
    assert result.violations == []
    assert set(result.requests["outcome"]) == {"ok"}
    assert result.report["interrupts"] == 0
    # The first decision of a queue is always yes (signalled_used_valid); nobody hears it.
    assert result.report["signals"] == 2
    assert result.report["interrupts_merged"] == 0
    assert result.report["vcpu_wakes"] == 0
    assert set(result.requests["irq"]) == {0}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("event_idx", [False, True])
def test_whatever_the_ring(packed, event_idx):
    result = run(
        workload={"number_ios": 80, "iodepth": 3, "numjobs": 2, "ioengine": "io_uring",
                  "hipri": True},
        target=DISK,
        guest={"poll_queues": 1},
        device={"packed": packed, "event_idx": event_idx},
        run={"hypothetical": packed},
    )  # fmt: skip
    assert result.violations == []
    assert result.report["interrupts"] == 0


def test_the_last_queues_are_polled_and_the_first_keep_their_interrupts():
    polled = simulate()
    assert set(polled.requests["queue"]) == {2, 3}
    assert sorted(set(zip(polled.requests["clone"], polled.requests["queue"], strict=True))) == [
        (0, 2), (1, 2), (2, 3), (3, 3)
    ]  # fmt: skip
    others = simulate(hipri=False)
    assert set(others.requests["queue"]) == {0, 1}
    assert others.report["interrupts"] > 0


def test_one_queue_is_left_to_interrupts():
    config = load(
        workload={"numjobs": 2, "ioengine": "io_uring", "hipri": True}, guest={"poll_queues": 9}
    )
    assert config.polled_queues == 1
    assert any("left to interrupts" in note for note in config.notes)


def test_a_thread_that_polls_keeps_its_cpu_busy():
    work = {"numjobs": 2, "iodepth": 1, "number_ios": 100}
    busy = simulate(poll_queues=1, **work).report["busy"]
    idle = simulate(poll_queues=1, hipri=False, **work).report["busy"]
    assert busy["vcpu0"] > 0.95
    assert idle["vcpu0"] < 0.6


def test_polling_saves_the_interrupt_at_depth_one():
    work = {"numjobs": 2, "iodepth": 1, "number_ios": 100}
    polled, interrupted = (
        simulate(poll_queues=1, hipri=hipri, **work).requests for hipri in (True, False)
    )
    # From used.idx to the handler: a turn instead of the way through eventfd and vector.
    assert polled["irq_ns"].mean() < 400 < interrupted["irq_ns"].mean()
    assert polled["latency_ns"].mean() < interrupted["latency_ns"].mean()


def test_a_completion_is_found_at_the_next_turn():
    turn = 1000  # ns
    result = simulate(
        poll_queues=1, numjobs=2, iodepth=1, costs={"guest.poll_turn": f"{turn}ns"},
        guest={"kernel": "7.2"},
    )  # fmt: skip
    waits = result.requests["irq_ns"].to_numpy(dtype=np.int64)
    assert waits.min() >= 0
    assert 0.3 * turn < waits.mean() < 0.7 * turn  # anywhere between two turns
    assert waits.max() <= turn + 200  # and not before the lock is free


def test_threads_of_one_queue_find_each_others_completions():
    result = run(
        workload={"number_ios": 200, "iodepth": 2, "numjobs": 3, "ioengine": "io_uring",
                  "hipri": True, "iodepth_batch_complete_min": 2},
        target=DISK,
        guest={"poll_queues": 1, "vcpus": 3},
    )  # fmt: skip
    assert result.violations == []
    assert len(result.requests) == 600
    assert set(result.requests["queue"]) == {2}


def test_an_open_loop_polls_no_longer_than_until_the_next_arrival():
    result = simulate(
        poll_queues=1, numjobs=2, io_submit_mode="offload", rate_iops=30_000, iodepth=8
    )
    assert result.violations == []
    late = (result.requests["t_submit_ns"] - result.requests["t_arrive_ns"]).median()
    assert late < 3000


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"workload": {"hipri": True, "ioengine": "io_uring"}}, "EOPNOTSUPP"),
        ({"workload": {"hipri": True, "numjobs": 2}, "guest": {"poll_queues": 1}}, "libaio"),
        ({"guest": {"poll_queues": 1, "kernel": "6.1"}}, "6.1"),
        (
            {"workload": {"hipri": True, "ioengine": "io_uring"}, "guest": {"poll_queues": 1}},
            "at least two",
        ),
    ],
)
def test_what_linux_cannot_poll_is_refused(sections, words):
    with pytest.raises(ConfigError, match=words):
        load(**sections)


def test_more_polled_requests_than_tags_are_refused():
    """A thread that waits for a tag does not poll here: all of them could wait for ever."""
    work = {'iodepth': 64, 'number_ios': 50, 'ioengine': 'io_uring', 'hipri': True}
    with pytest.raises(ConfigError, match='64 polled requests may want one queue, which has 32'):
        load(workload=work, guest={'poll_queues': 1, 'vcpus': 2}, device={'virtqueue_size': 32})
