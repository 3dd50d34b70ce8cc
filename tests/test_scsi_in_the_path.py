"""Commands of any kind through the simulated machine: same answers as on the desk, right times.

Nobody's job runs: requests are put into the first ring by hand, and the worker, LIO and the disk do
the rest, under either engine. The driver wants no interrupts.
"""

import numpy as np
import pytest

from sim import agents, backend, costs, guest, machine, record, vring
from sim.config import load
from sim.engine import ENGINES
from sim.formats.cdb import build, by_name
from sim.initiator import PATTERN, Initiator, header
from sim.lio.spec import LunSpec

u64 = np.uint64


class Bench:
    """A machine without jobs, and a driver that is us."""

    def __init__(self, engine="compiled", **sections):
        sections = {"target": {"size": "1g"}} | sections
        device = {"event_idx": False} | sections.pop("device", {})
        config = load(device=device, workload={"bs": "16k"}, **sections)
        self.machine = machine.build(config, costs.of_config(config))
        self.engine = ENGINES[engine](self.machine)
        self.guest = self.machine.guest_queues[0]
        self.host = self.machine.host_queues[0]
        self.ring = u64(self.word(self.guest, guest.G_DRIVER))
        vring.disable_cb(self.machine.mem, self.machine.lines, self.machine.st, self.ring, 0)
        self.rows = {}

    def word(self, base, name):
        return int(self.machine.st[base + int(name)])

    def publish(self, cdb, data_out=b"", data_in=0, cut=None, **place):
        """Put a request into the ring; the address of its response."""
        m = self.machine
        token = len(self.rows)
        head = header(cdb, **place)
        start = self.word(self.guest, guest.G_HEADERS) + token * 832
        data = self.word(self.guest, guest.G_DATA) + token * 16384
        m.mem[start : start + len(head)] = np.frombuffer(head, dtype=np.uint8)
        m.mem[data : data + len(data_out)] = np.frombuffer(data_out, dtype=np.uint8)
        answer = start + 64
        out, into = [(start, 51)], [(answer, 108)]
        if cut is not None:
            out = [(start, cut), (start + cut, 51 - cut)]
            into = [(answer, cut), (answer + cut, 108 - cut)]
        out += [(data, len(data_out))] if data_out else []
        into += [(data, data_in)] if data_in else []
        buffers = self.word(self.guest, guest.G_BUFFERS)
        m.st[buffers : buffers + 4] = len(out), len(into), 0, 0
        for i, (at, size) in enumerate(out + into):
            m.st[buffers + 4 + 2 * i : buffers + 6 + 2 * i] = at, size
        table = self.word(self.guest, guest.G_TABLES) + token * 128
        found = vring.add(m.mem, m.lines, m.st, self.ring, 0, u64(buffers), token, table)
        assert found >= 0
        row = int(m.st[int(agents.H_ROWS)])
        m.st[int(agents.H_ROWS)] += record.ROW_WORDS
        m.st[self.word(self.guest, guest.G_ROW_OF_HEAD) + int(found)] = row
        self.rows[token] = row
        return answer, data, data_in

    def run(self):
        now = int(self.engine.env.now)
        work = (u64(self.host), backend.KICK_WORK, now)
        backend.queue_vq_work(self.machine.st, *work)
        self.engine.wake_agents()
        self.engine.run()

    def send(self, cdb, **options):
        """(response, data, names of its timestamps with their times)."""
        at, data, size = self.publish(cdb, **options)
        self.run()
        mem, row = self.machine.mem, self.rows[max(self.rows)]
        times = {name: int(self.machine.tr[row + i]) for i, name in enumerate(record.COLUMNS)}
        return mem[at : at + 108].tobytes(), mem[data : data + size].tobytes(), times


CASES = {
    "INQUIRY": ({"evpd": 1, "page": 0x83, "alloc": 255}, 255, b"", "emulated"),
    "REPORT LUNS": ({"alloc": 64}, 64, b"", "emulated"),
    "READ CAPACITY(16)": ({"alloc": 32}, 32, b"", "emulated"),
    "MODE SENSE(6)": ({"page": 8, "alloc": 64}, 64, b"", "emulated"),
    "TEST UNIT READY": ({}, 0, b"", "emulated"),
    "PERSISTENT RESERVE IN REPORT CAPABILITIES": ({"alloc": 8}, 8, b"", "emulated"),
    "REQUEST SENSE": ({"desc": 1, "alloc": 18}, 18, b"", "fails in the kworker"),
    "START STOP UNIT": ({}, 0, b"", "fails in the kworker"),
    "READ(10)": ({"lba": 0x1FFFFF, "blocks": 2}, 1024, b"", "fails in the worker"),
    "WRITE(10)": ({"blocks": 8}, 0, bytes(512), "fails in the worker"),
    "SEEK(10)": ({}, 0, b"", "emulated"),
    "UNMAP": ({"list_length": 24}, 0, bytes(24), "fails in the worker"),
    "WRITE(16)": ({"lba": 5, "blocks": 2}, 0, b"\x07" * 1024, "medium"),
    "READ(16)": ({"lba": 4, "blocks": 4}, 2048, b"", "medium"),
    "READ(12)": ({"lba": 4, "blocks": 4}, 1024, b"", "medium"),  # half of it fits
    "WRITE SAME(10)": ({"lba": 9, "blocks": 3}, 0, b"\x08" * 512, "medium"),
    "READ(6)": ({"lba": 4, "blocks": 8}, 4096, b"", "medium"),
    "SYNCHRONIZE CACHE(10)": ({}, 0, b"", "medium"),
    "COMPARE AND WRITE": ({"lba": 5, "blocks": 1}, 0, b"\x07" * 512 + b"\x09" * 512, "medium"),
}


@pytest.mark.parametrize("engine", ["compiled", "simpy"])
def test_the_same_answers_as_on_the_desk(engine):
    bench, desk = Bench(engine), Initiator([LunSpec(size=1 << 30)])
    for name, (fields, data_in, data_out, course) in CASES.items():
        cdb = build(by_name(name), fields)
        options = {"data_out": data_out, "data_in": data_in}
        expected = desk.send(cdb, **options)
        response, data, times = bench.send(cdb, **options)
        assert response == expected.response, name
        untouched = expected.data[: expected.length].replace(bytes([PATTERN]), b"\0")
        assert data[: expected.length] == untouched, name
        fetch, issue, done, report, used = (
            times[key] for key in ("t_fetch", "t_issue", "t_done", "t_report", "t_used")
        )
        if course == "fails in the worker":
            assert fetch == issue == done == report < used, name
        elif course == "fails in the kworker":
            assert fetch < issue == done == report < used, name
        elif course == "emulated":
            assert fetch < issue == done < report < used, name
        else:
            assert fetch < issue < report < used, name
            assert issue <= done


def test_a_write_that_fails_does_not_reach_the_medium():
    bench = Bench()
    before = bench.machine.media.copy()
    response, _, _ = bench.send(build(by_name("WRITE(10)"), {"blocks": 2}), data_out=b"\x05" * 512)
    assert response[24:26] == b"\x0e\x03"
    assert (bench.machine.media == before).all()


def test_a_request_in_many_pieces():
    bench = Bench()
    bench.send(build(by_name("WRITE(10)"), {"lba": 3, "blocks": 1}), data_out=b"\x31" * 512)
    cdb = build(by_name("READ(10)"), {"lba": 3, "blocks": 1})
    response, data, _ = bench.send(cdb, data_in=512, cut=19)
    assert (response, data[:8]) == (bytes(108), b"\x31" * 8)
    missing, _, _ = bench.send(cdb, data_in=512, cut=19, lun=9)
    assert missing[12:26] == bytes.fromhex("70 00 05 00 00 00 00 0a 00 00 00 00 25 00")


def test_answers_that_are_none():
    bench = Bench()
    response, _, times = bench.send(bytes(6), target=7)
    assert response == bytes(11) + b"\x03" + bytes(96)
    assert times["t_fetch"] == times["t_report"]
    worker = bench.machine.bases[bench.machine.slots_of(agents.WORKER)[0]]
    assert bench.word(worker, backend.B_BAD_TARGETS) == 1
    assert bench.word(worker, backend.B_DROPPED) == 0


def test_commands_of_one_batch_come_in_order_and_are_answered_last_in_first_out():
    bench = Bench()
    for name in ("TEST UNIT READY", "INQUIRY", "REPORT LUNS", "READ(10)"):
        fields = {"alloc": 64} if name in ("INQUIRY", "REPORT LUNS") else {}
        fields |= {"blocks": 1, "lba": 1 << 30} if name == "READ(10)" else {}
        bench.publish(build(by_name(name), fields), data_in=512)
    bench.run()
    tr, rows = bench.machine.tr, bench.rows.values()
    fetched = [int(tr[row + int(record.R_FETCH)]) for row in rows]
    assert fetched == sorted(fetched)
    used = [int(tr[row + int(record.R_USED)]) for row in rows]
    assert all(used)
    assert used[3] == min(used)  # failed in the worker itself, before the others were submitted


@pytest.mark.parametrize("kernel", ["6.12", "7.2"])
def test_direct_submission(kernel):
    host = {"kernel": kernel, "submit_type": "direct"}
    bench = Bench(host=host)
    inquiry = build(by_name("INQUIRY"), {"alloc": 96})
    response, data, times = bench.send(inquiry, data_in=96)
    assert data[8:15] == b"LIO-ORG"
    assert response == bytes(108)
    assert times["t_issue"] == times["t_done"] < times["t_report"]
    failed, _, at = bench.send(build(by_name("START STOP UNIT"), {}))
    assert failed[24:26] == b"\x24\x00"
    assert at["t_issue"] == at["t_done"] == at["t_report"] < at["t_used"]
