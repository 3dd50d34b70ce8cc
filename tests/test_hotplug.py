"""LUNs that come and go: what the host tells on the event queue, and what the guest makes of it."""

import numpy as np
import pytest

from sim import backend, costs, guest, invariants, machine, record, vring
from sim.agents import A_STATE
from sim.analysis.frame import request_frame
from sim.config import ConfigError, load
from sim.control import hotplug
from sim.driver.complete import outcome_of
from sim.engine import ENGINES
from sim.layout import VQ_EVENT
from sim.run import Phases, run
from sim.vhost import control_queue as vhost_control
from sim.vhost import scsi as vhost_scsi

u64 = np.uint64
SLOW = {"number_ios": 60, "iodepth": 2, "thinktime": "20us"}


def simulate(*actions, engine="compiled", workload=None, device=None, guest="6.12", **sections):
    if actions:
        sections["hotplug"] = [dict(action) for action in actions]
    return run(
        workload=SLOW | (workload or {}),
        lun=[{}, {}, {"number": 300}],
        device={"hotplug": True} | (device or {}),
        target={"kind": "constant", "service": "30us"},
        guest={"kernel": guest},
        run={"engine": engine},
        **sections,
    )


def remove(at, lun=1):
    return {"at": at, "action": "remove", "lun": lun}


def add(at, lun=1):
    return {"at": at, "action": "add", "lun": lun}


def told(result):
    return [(event["reason"], event["lun"], event["missed"]) for event in result.report["events"]]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lun_goes_and_comes_back(engine):
    work = {"lun": 1}
    result = simulate(remove("400us"), add("900us"), engine=engine, workload=work)
    assert told(result) == [("removed", 1, False), ("rescan", 1, False)]
    gone = result.requests["outcome"] == "no_connect"
    submitted = result.requests["t_submit_ns"]
    events = [event["t_handle_ns"] for event in result.report["events"]]
    assert gone.sum() > 5
    assert submitted[gone].between(events[0], events[1] + 10_000).all()  # the scan takes a while
    assert (result.requests["outcome"][submitted > events[1] + 20_000] == "ok").sum() > 5
    # A request that the driver gives back by itself has never been with the host.
    assert result.requests["t_avail_ns"][gone].isna().all()
    assert result.requests["t_complete_ns"][gone].notna().all()
    assert result.violations == []


def test_a_scan_asks_the_lun_and_believes_what_it_says():
    result = simulate(remove("400us"), add("900us"))
    assert [event["inquiries"] for event in result.report["events"]] == [0, 1]


def test_a_lun_that_comes_later_is_not_there_before():
    result = simulate(add("500us"), workload={"lun": 1})
    first = result.report["events"][0]["t_handle_ns"]
    before = result.requests["t_submit_ns"] < first
    assert set(result.requests["outcome"][before]) == {"no_connect"}
    assert "ok" in set(result.requests["outcome"][~before])


def test_the_other_luns_of_the_target_tell_once_that_luns_have_changed():
    result = simulate(remove("400us"), workload={"lun": 0})
    assert result.report["requests_retried"] == 1
    assert simulate(workload={"lun": 0}).report["requests_retried"] == 0


def test_a_lun_above_255_is_told_in_the_flat_form_and_read_without_a_mask():
    # vhost writes 0x41 0x2c for LUN 300 and Linux takes the method bits for a part of the number.
    assert told(simulate(remove("400us", lun=300))) == [("removed", 0x412C, False)]


@pytest.mark.parametrize(("kernel", "device"), [("6.12", {"hotplug": False}), ("7.2", {})])
def test_without_hotplug_nothing_is_told(kernel, device):
    result = simulate(remove("400us"), guest=kernel, device={"hotplug": False} | device)
    assert (told(result) == []) == (not device.get("hotplug", False))


# ------------------------------------------------------------------------ by hand, on one machine


class Bench:
    """A machine with its engine, whose events a test makes by itself."""

    def __init__(self, engine="compiled", bugs=None, **device):
        host = {} if bugs is None else {"bugs": bugs}
        config = load(
            workload={"number_ios": 30, "thinktime": "40us"},
            lun=[{}, {}],
            device={"hotplug": True} | device,
            host=host,
        )
        self.config = config
        self.world = machine.build(config, costs.of_config(config))
        self.engine = ENGINES[engine](self.world)
        Phases(self.engine, config)
        self.queue = u64(self.world.host_vqs[VQ_EVENT])
        self.vhost = u64(self.world.vhost)

    def at(self, cycle, action):
        def process():
            yield self.engine.env.timeout(cycle)
            action()
            self.engine.wake_agents()

        self.engine.env.process(process())

    def plug(self, times=1, luns=256):
        for number in range(times):
            field = 0x0001 | number % luns << 24
            backend.plug(self.world.st, self.queue, field, 1, int(self.engine.env.now))

    def kick(self):
        now = int(self.engine.env.now)
        backend.queue_vq_work(self.world.st, self.queue, backend.KICK_WORK, now)

    def run(self):
        self.engine.run()
        return hotplug.events_of(self.world, self.config.host.cpu_hz)

    @property
    def missed(self):
        return int(self.world.st[self.vhost + vhost_scsi.S_EVENTS_MISSED])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_process_of_ones_own_plugs_luns(engine):
    bench = Bench(engine)
    bench.at(100_000, lambda: hotplug.plug(bench.engine, "remove", 0, 1))
    bench.at(900_000, lambda: hotplug.plug(bench.engine, "add", 0, 1))
    events = bench.run()
    assert [(e["reason"], e["lun"]) for e in events] == [("removed", 1), ("rescan", 1)]
    with pytest.raises(KeyError):
        hotplug.plug(bench.engine, "remove", 0, 7)


def test_eight_buffers_wait_each_added_with_a_kick_of_its_own():
    for event_idx, kicks in ((True, 1), (False, 8)):
        bench = Bench(event_idx=event_idx)
        driver = bench.world.drivers[VQ_EVENT]
        assert bench.world.field(driver, vring.D_NUM_FREE) == 128 - 8
        # With EVENT_IDX the host asks for the first alone: it has nothing to tell and never looks.
        assert bench.world.field(bench.world.event_work, guest.W_KICKS) == kicks


@pytest.mark.parametrize("engine", ENGINES)
def test_events_of_one_batch_are_told_last_in_first_out(engine):
    bench = Bench(engine)
    bench.at(100_000, lambda: bench.plug(5))
    assert [event["lun"] for event in bench.run()] == [4, 3, 2, 1, 0]


def test_what_finds_no_buffer_is_missed_and_the_next_event_says_so():
    bench = Bench()
    bench.at(100_000, lambda: bench.plug(30, luns=1))  # each makes the guest ask LUN 0
    events = bench.run()
    assert len(events) < 30
    assert not any(event["missed"] for event in events[:8])
    # The buffer that came back first was kicked, and the kick found that there is something to say.
    ((at, event),) = [(at, event) for at, event in enumerate(events) if event["missed"]]
    assert at >= 8
    assert (event["event"], event["inquiries"]) == ("no_event", 2)  # then every LUN is asked
    assert bench.missed == 0


def test_more_than_129_waiting_events_are_not_even_kept():
    bench = Bench()
    seen = []

    def burst():
        bench.plug(140)
        seen.append(bench.world.field(bench.world.vhost, vhost_scsi.S_EVENTS_NR))

    bench.at(100_000, burst)
    events = bench.run()
    assert seen == [vhost_control.EVENTS_MAX + 1]
    assert events[0]["missed"]  # the first that is told after one was missed
    assert not events[1]["missed"]


@pytest.mark.parametrize("bugs", [None, "plug_unchecked"])
def test_a_lun_plugged_while_no_endpoint_is_set(bugs):
    # Without the check under the queue's mutex the event outlived the flush of CLEAR_ENDPOINT.
    bench = Bench(bugs=bugs)
    waiting = []

    def plug_after_the_endpoint_is_gone():
        bench.world.st[bench.queue + backend.Q_BACKEND] = 0
        bench.plug()
        waiting.append(bench.world.field(bench.world.vhost, vhost_scsi.S_EVENTS_NR))

    bench.at(100_000, plug_after_the_endpoint_is_gone)
    assert bench.run() == []
    assert waiting == [0 if bugs is None else 1]
    assert bench.missed == (0 if bugs is None else 1)


def test_a_kick_tells_that_events_were_missed_whoever_set_the_mark():
    bench = Bench()

    def mark():
        bench.world.st[bench.vhost + vhost_scsi.S_EVENTS_MISSED] = 1  # as VHOST_SCSI_SET_EVENTS...
        bench.kick()

    bench.at(100_000, mark)
    (event,) = bench.run()
    assert (event["event"], event["missed"], event["inquiries"]) == ("no_event", True, 2)


# ------------------------------------------------------------------------------------- the driver


@pytest.mark.parametrize(
    ("response", "status", "outcome"),
    [
        (0, 0, "ok"),
        (0, 2, "check_condition"),
        (0, 0x18, "reservation_conflict"),
        (0, 0x28, "task_set_full"),
        (1, 0, "error"),
        (2, 0, "abort"),
        (3, 0, "bad_target"),
        (4, 0, "reset"),
        (5, 0, "bus_busy"),
        (6, 0, "transport_disrupted"),
        (7, 0, "bad_target"),
        (8, 0, "reservation_conflict"),
        (9, 0, "error"),
        (77, 0, "error"),
    ],
)
def test_responses_become_host_bytes(response, status, outcome):
    assert record.OUTCOMES[int(outcome_of(response, status))] == outcome


@pytest.mark.parametrize("engine", ENGINES)
def test_on_a_broken_ring_the_driver_answers_bad_target_by_itself(engine):
    config = load(workload={"number_ios": 40, "thinktime": "50us"}, run={"engine": engine})
    world = machine.build(config, costs.of_config(config))
    driver = ENGINES[engine](world)
    Phases(driver, config)

    def break_the_ring_while_it_is_empty():
        yield driver.env.timeout(1_000_000)
        while world.field(world.bases[0], A_STATE) != guest.SLEEP:
            yield driver.env.timeout(1000)
        world.st[world.drivers[2] + int(vring.D_BROKEN)] = 1

    driver.env.process(break_the_ring_while_it_is_empty())
    driver.run()
    requests = request_frame(world, config)
    failed = requests[requests["outcome"] == "bad_target"]
    assert 20 < len(failed) < 40
    assert failed["t_avail_ns"].isna().all()
    assert invariants.check(world) == []


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([{"lun": 5}], "no such LUN"),
        ([remove("1ms"), remove("2ms")], "twice"),
        ([{"action": "swap"}], "hotplug.action"),
    ],
)
def test_bad_actions_are_refused(actions, words):
    with pytest.raises(ConfigError, match=words):
        load(lun=[{}, {}], hotplug=actions)


def test_a_request_that_is_lost_or_late_is_never_aborted():
    work = {"number_ios": 12, "iodepth": 2}
    late = run(workload=work, target={"stuck_at": 5, "stuck_for": "70s"})
    assert late.report["requests_above_30s"] == 1
    assert set(late.requests["outcome"]) == {"ok"}
    assert late.requests["latency_ns"].max() > 70e9
    lost = run(workload=work, target={"stuck_at": 5})
    assert lost.report["requests_above_30s"] == 1
    assert list(lost.requests["outcome"]).count("unfinished") == 1
    assert run(workload=work).report["requests_above_30s"] == 0
    sampled = run(workload=work, run={"record": "histogram"})
    assert sampled.report["requests_above_30s"] is None
