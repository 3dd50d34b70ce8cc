"""The guest's error handler against vhost-scsi's control queue: who is answered, what, and when."""

import numpy as np
import pytest

from sim.config import ConfigError, from_effective, load
from sim.control.stopping import StopPlan, stop
from sim.engine import ENGINES
from sim.formats.action_keys import TMF_FUNCTIONS
from sim.run import run

US = 1000


def simulate(*tmfs, engine="compiled", workload=None, target=None, luns=(), **host):
    """A small run with tasks of the error handler; the result and the tasks."""
    lists = {"tmf": [dict(tmf) for tmf in tmfs]} | ({"lun": list(luns)} if luns else {})
    result = run(
        workload={"iodepth": 8, "number_ios": 200, "numjobs": 2} | (workload or {}),
        target=target or {"kind": "exponential", "service": "80us"},
        host=host,
        run={"engine": engine},
        **lists,
    )
    return result, result.report["tmf"]


def ns(result, name):
    return result.requests[f"{name}_ns"].to_numpy(dtype=np.int64)


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_lun_reset_is_answered_after_every_command_it_aborts(kernel, engine):
    result, (task,) = simulate({"at": "400us"}, engine=engine, kernel=kernel)
    begun = task["t_issue_ns"]
    aborted = (ns(result, "t_issue") < begun) & (ns(result, "t_done") >= begun)
    assert aborted.sum() > 4
    assert ns(result, "t_used")[aborted].max() < task["t_used_ns"]
    # It waits for the disk ...
    assert task["t_done_ns"] >= ns(result, "t_done")[aborted].max()
    # ... and what it has aborted is answered all the same, as if nothing had been.
    assert set(result.requests["outcome"][aborted]) == {"ok"}
    assert (task["response"], task["result"]) == ("function_succeeded", "success")
    assert result.violations == []


def test_the_next_command_hears_unit_attention_and_is_sent_again():
    result, (task,) = simulate({"at": "400us"})
    # LIO tells whoever comes first; the guest's SCSI layer asks again, so that no job sees it.
    assert result.report["requests_retried"] == 1
    assert set(result.requests["outcome"]) == {"ok"}
    after = result.requests[result.requests["t_issue_ns"] >= task["t_done_ns"]]
    slowest = after.sort_values("t_arrive_ns").head(8)["submit_ns"].max()
    assert slowest > 5000  # the first try stands in the wait before the second
    without, _ = simulate({"at": "400us", "function": "abort_task"})
    assert without.report["requests_retried"] == 0


def test_no_command_goes_to_the_host_while_a_reset_is_on():
    result, (task,) = simulate({"at": "400us"})
    published = ns(result, "t_avail")
    on = (published > task["t_submit_ns"]) & (published < task["t_complete_ns"])
    assert not on.any()
    other, (rejected,) = simulate({"at": "400us", "function": "abort_task"})
    published = ns(other, "t_avail")
    later = rejected["t_submit_ns"] + task["t_complete_ns"] - task["t_submit_ns"]
    assert ((published > rejected["t_submit_ns"]) & (published < later)).any()


def test_a_reset_waits_as_long_as_the_slowest_of_its_commands():
    slow = {"kind": "constant", "service": "3ms", "lanes": 64}
    _, (task,) = simulate({"at": "500us"}, target=slow)
    assert 2_400 * US < task["t_done_ns"] - task["t_issue_ns"] < 2_600 * US


def test_a_reset_of_one_lun_leaves_the_others_alone():
    disk = {"kind": "constant", "service": "3ms"}
    luns = [disk, disk]
    jobs = {"numjobs": 1, "number_ios": 20}
    _, (busy, idle) = simulate(
        {"at": "500us", "lun": 0}, {"at": "9ms", "lun": 1}, luns=luns, workload=jobs
    )
    assert busy["t_done_ns"] - busy["t_issue_ns"] > 1000 * US
    assert idle["t_done_ns"] == idle["t_issue_ns"]


@pytest.mark.parametrize("function", [name for name in TMF_FUNCTIONS if name != "lun_reset"])
def test_every_other_function_is_rejected_at_once_and_the_command_goes_on(function):
    slow = {"kind": "constant", "service": "3ms", "lanes": 64}
    work = {"numjobs": 1, "number_ios": 8}
    result, (task,) = simulate({"at": "500us", "function": function}, target=slow, workload=work)
    assert (task["response"], task["result"]) == ("function_rejected", "failed")
    assert task["t_complete_ns"] - task["t_arrive_ns"] < 50 * US
    assert task["t_fetch_ns"] == task["t_used_ns"]
    assert set(result.requests["outcome"]) == {"ok"}
    assert ns(result, "t_complete").min() > 3_000 * US


@pytest.mark.parametrize("function", ["an_query", "an_subscribe"])
def test_asynchronous_notification_is_granted_and_means_nothing(function):
    _, (task,) = simulate({"at": "100us", "function": function, "target": 9})
    assert (task["response"], task["result"]) == ("ok", "success")


@pytest.mark.parametrize(
    ("kernel", "response", "result"),
    [("6.1", "ok", "success"), ("6.12", "bad_target", "failed"), ("7.2", "bad_target", "failed")],
)
def test_on_6_1_a_reset_of_a_missing_target_reads_as_success(kernel, response, result):
    # BAD_TARGET was written as a command's 108 bytes into the one byte of a TMF's answer.
    _, (task,) = simulate({"at": "100us", "target": 3}, kernel=kernel)
    assert (task["response"], task["result"]) == (response, result)


def test_a_reset_of_a_missing_lun_is_rejected():
    _, (task,) = simulate({"at": "100us", "lun": 7})
    assert task["response"] == "function_rejected"


def test_before_the_control_queue_was_served_the_error_handler_waited_for_ever():
    work = {"number_ios": 50}
    result, (first, second) = simulate(
        {"at": "100us", "function": "abort_task"}, {"at": "200us"},
        bugs="control_silent", workload=work,
    )  # fmt: skip
    assert first["result"] == second["result"] == "waiting"
    assert first["t_kick_ns"] is not None
    assert first["t_fetch_ns"] is None
    assert second["t_submit_ns"] is None  # one task at a time
    assert len(result.requests) == 100  # of no reset it holds nobody back
    served, tasks = simulate(
        {"at": "100us", "function": "abort_task"}, {"at": "200us"}, workload=work
    )
    assert all(task["result"] != "waiting" for task in tasks)
    assert served.violations == []


def test_tasks_wait_for_each_other():
    _, (first, second) = simulate({"at": "400us"}, {"at": "400us", "function": "query_task"})
    assert second["t_submit_ns"] >= first["t_complete_ns"]


def test_a_config_with_tasks_survives_print_and_read():
    config = load(tmf=[{"at": "1ms", "function": "query_task", "lun": 5}, {"at": 3}])
    assert from_effective(config.effective()) == config
    assert [tmf.at for tmf in config.tmfs] == [1_000_000, 3_000_000]
    assert "tmf" not in load().effective()


@pytest.mark.parametrize(
    ("tmf", "words"),
    [
        ({"function": "reset"}, "tmf.function"),
        ({"when": "1ms"}, "no key 'when' in tmf"),
        ({"lun": 99999}, "out of range"),
    ],
)
def test_bad_tasks_are_refused(tmf, words):
    with pytest.raises(ConfigError, match=words):
        load(tmf=[tmf])


@pytest.mark.parametrize("bugs", [None, "tmf_no_flush"])
def test_with_several_workers_only_the_flush_keeps_the_answer_behind_the_commands(bugs):
    # Control queue and first request queue share a worker; that of the second sleeps deeply.
    host = {"deep_idle": True} | ({} if bugs is None else {"bugs": bugs})
    result = run(
        workload={"numjobs": 2, "iodepth": 1, "number_ios": 10},
        target={"kind": "constant", "service": "900us", "lanes": 256},
        device={"worker_per_virtqueue": True},
        host=host,
        tmf=[{"at": "500us"}],
    )
    (task,) = result.report["tmf"]
    aborted = ns(result, "t_issue") < task["t_issue_ns"]
    assert aborted.sum() == 2
    overtaken = (ns(result, "t_used")[aborted] > task["t_used_ns"]).sum()
    assert overtaken == (0 if bugs is None else 1)
    assert result.violations == []


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_stop_waits_for_a_reset_that_is_on(kernel):
    config = load(
        workload={"iodepth": 4, "number_ios": 12},
        target={"kind": "lanes", "service": "100ms", "distribution": "constant", "lanes": 64},
        tmf=[{"at": "10ms"}],
        host={"kernel": kernel},
    )
    report = stop(config, StopPlan(at=20_000_000))
    assert report["in_flight_at_stop"] == 5  # four commands and the reset that waits for them
    assert report["clear_endpoint_ns"] > 79_000_000
    assert report["violations"] == []
