"""Captures of real rings: what is in flight, and what of a broken one is noticed.

tests/captures holds six. The whole set of captures they were taken from is tested where it lies
beside the checkout or $VHOST_SCSI_SIM_CAPTURES names it.
"""

import json
import os
import random
import shutil
import struct
from pathlib import Path

import pytest

from sim import inspection
from sim.__main__ import main
from sim.errors import ConfigError
from sim.formats.capture import ADDRESS_LIMIT, Saved, read_capture

HERE = Path(__file__).resolve().parent
SMALL = HERE / "captures"
NAMES = sorted(path.name for path in SMALL.iterdir() if path.is_dir())
READS = "split_evon_indon__3inflight_rd4k_qd16"
DIRECT = "split_evoff_indoff__3inflight_wr4k_qd4"
WRAPPED = "packed_evoff_indoff__3inflight_rd4k_qd16"
PACKED = "packed_evon_indon__3inflight_rd4k_qd16"
VHOST = "vhost_split_evon_indon__3inflight_rd4k_qd4"


def whole_set():
    """Every capture folder there is, or none."""
    beside = HERE.parent / ".." / "shared" / "data" / "captures"
    place = Path(os.environ.get("VHOST_SCSI_SIM_CAPTURES") or beside)
    return sorted(meta.parent for meta in place.glob("*/meta.json"))


def report_of(folder):
    return inspection.inspect(read_capture(folder))


def in_flight(report):
    return [row for queue in report["queues"] for row in queue.get("in_flight", [])]


# ----------------------------------------------------------------------------------- sound ones


def check_against_what_is_known(folder):
    """A capture's name says what was going on, meta.json what QEMU thought."""
    report = report_of(folder)
    meta = json.loads((folder / "meta.json").read_text())
    assert report["verdicts"] == []
    control, event, request = report["queues"]
    assert control["available"] == 0
    vhost = folder.name.startswith("vhost")
    assert event["available"] == (0 if vhost else 8)  # the guest fills it if it has HOTPLUG
    assert report["served_by"] == ("kernel vhost" if vhost else "QEMU")

    depth = int(folder.name.rpartition("_qd")[2]) if "__3inflight" in folder.name else 0
    requests = request["in_flight"]
    assert len(requests) == depth
    assert {row["opcode"] for row in requests} <= {0x28 if "rd4k" in folder.name else 0x2A}
    assert len({row["lba"] for row in requests}) == depth
    assert len({row["tag"] for row in requests}) == depth
    where = (1, 0) if vhost else (0, 1)
    for row in requests:
        assert (row["target"], row["lun"]) == where
        assert (row["blocks"], row["data_len"]) == (8, 4096)
        assert row["direction"] == ("from_device" if row["opcode"] == 0x28 else "to_device")
        assert bytes.fromhex(row["cdb"])[0] == row["opcode"]
        assert row["lba"] < 65536  # the workload's 32 MiB

    for queue, told in zip(report["queues"], meta["queues"], strict=True):
        if "shadow-avail-idx" not in told:
            continue  # vhost was running: QEMU's figures are stale
        assert queue["used_idx"] == told["used-idx"]
        if queue["role"] == "request":
            assert queue["avail_idx"] == told["last-avail-idx"]
            per_request = 3 if "packed_evoff_indoff" in folder.name else 1
            assert told["inuse"] == per_request * depth  # a packed ring's counts descriptors


@pytest.mark.parametrize("name", NAMES)
def test_a_small_capture(name):
    check_against_what_is_known(SMALL / name)


@pytest.mark.parametrize("folder", whole_set() or [None], ids=lambda f: f.name if f else "none")
def test_a_capture_of_the_whole_set(folder):
    if folder is None:
        pytest.skip("the whole set of captures is not here ($VHOST_SCSI_SIM_CAPTURES)")
    check_against_what_is_known(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_compact_capture_says_what_the_whole_one_says(name):
    source = [folder for folder in whole_set() if folder.name == name]
    if not source:
        pytest.skip("the whole set of captures is not here ($VHOST_SCSI_SIM_CAPTURES)")
    assert report_of(SMALL / name) == report_of(source[0])


def test_the_sixteen_reads():
    request = report_of(SMALL / READS)["queues"][2]
    assert request["layout"] == "split"
    assert (request["avail_idx"], request["used_idx"]) == (1162, 1146)
    assert [row["command"] for row in request["in_flight"]] == ["READ(10)"] * 16
    assert request["in_flight"][0] == {
        "head": 5, "target": 0, "lun": 1, "tag": 0xFFFF888006503ED0,
        "cdb": "28 00 00 00 78 50 00 00 08 00", "opcode": 0x28, "command": "READ(10)",
        "lba": 0x7850, "blocks": 8, "data_len": 4096, "direction": "from_device",
    }  # fmt: skip


def test_a_packed_ring_that_has_wrapped():
    request = report_of(SMALL / WRAPPED)["queues"][2]
    assert (request["used_idx"], request["used_wrap"]) == (247, 0)
    assert (request["avail_idx"], request["avail_wrap"]) == (39, 1)
    assert len(request["in_flight"]) == 16


def test_stale_slots_of_an_idle_packed_ring_are_not_in_flight(tmp_path):
    """With the other wrap counter the whole ring would look available."""
    folder = copy(PACKED, tmp_path)
    with edited(folder) as meta:
        meta["queues"][2]["used-idx"] = meta["queues"][2]["last-avail-idx"]
        meta["queues"][2]["inuse"] = 0
    assert in_flight(report_of(folder)) == []


# ------------------------------------------------------------------------------ the command line


def run(capsys, *arguments):
    code = main(["ring", "inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_prints_a_table(capsys):
    code, out, err = run(capsys, SMALL / VHOST)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{VHOST}: served by kernel vhost"
    assert lines[-6] == "queue 2 request  split ring of 128  avail 326  used 322  in flight 4"
    assert len([line for line in lines if "READ(10)" in line and "28 00 00 00" in line]) == 4


def test_command_prints_json(capsys):
    code, out, _ = run(capsys, SMALL / READS, "--json")
    report = json.loads(out)
    assert code == 0
    assert list(report) == ["capture", "origin", "served_by", "queues", "verdicts"]
    assert report["queues"][1]["available"] == 8
    assert len(report["queues"][2]["in_flight"]) == 16


# -------------------------------------------------------------------------------- wrong captures


def copy(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(SMALL / name, folder)
    return folder


class edited:  # noqa: N801  (reads as a verb)
    """with edited(folder) as meta: change meta.json."""

    def __init__(self, folder):
        self.file = folder / "meta.json"

    def __enter__(self):
        self.meta = json.loads(self.file.read_text())
        return self.meta

    def __exit__(self, *exception):
        self.file.write_text(json.dumps(self.meta))


def poke(folder, file, offset, data):
    raw = bytearray((folder / file).read_bytes())
    raw[offset : offset + len(data)] = data
    (folder / file).write_bytes(raw)


def first_request(folder):
    """Where the header and the response of the first request in flight lie in buffers.bin."""
    rows = json.loads((folder / "meta.json").read_text())["buffers"]
    header = next(row["off"] for row in rows if row["saved"] == 51)
    response = next(row["off"] for row in rows if row["saved"] == 108)
    return header, response


def le(value, size=2):
    return (value % (1 << 8 * size)).to_bytes(size, "little")


def avail_idx_jumps(folder):
    poke(folder, "q2_avail.bin", 2, le(1146 + 257))


def head_out_of_range(folder):
    poke(folder, "q2_avail.bin", 4 + 2 * (1146 % 256), le(256))


def head_is_there_twice(folder):
    poke(folder, "q2_avail.bin", 4 + 2 * (1147 % 256), le(5))


def used_idx_moved(folder):
    poke(folder, "q2_used.bin", 2, le(1147))


def used_id_out_of_range(folder):
    poke(folder, "q2_used.bin", 4 + 8 * 7, le(256, 4))


def table_length_odd(folder):
    poke(folder, "q2_desc.bin", 16 * 5 + 8, le(49, 4))


def table_elsewhere(folder):
    poke(folder, "q2_desc.bin", 16 * 5, le(0x12345000, 8))


def table_outside_memory(folder):
    poke(folder, "q2_desc.bin", 16 * 5, le(1 << 63, 8))


def first_indirect_table(folder):
    rows = json.loads((folder / "meta.json").read_text())["buffers"]
    return next(row["off"] for row in rows if row["kind"] == "indirect_table")


def request_elsewhere(folder):
    poke(folder, "buffers.bin", first_indirect_table(folder), le(0x12345000, 8))


def data_readable(folder):
    poke(folder, "buffers.bin", first_indirect_table(folder) + 32 + 12, le(0))


def response_too_short(folder):
    at = first_indirect_table(folder)
    poke(folder, "buffers.bin", at + 16 + 8, le(50, 4))
    poke(folder, "buffers.bin", at + 32 + 8, le(50, 4))


def request_too_short(folder):
    poke(folder, "buffers.bin", first_indirect_table(folder) + 8, le(50, 4))


def lun_is_not_one(folder):
    poke(folder, "buffers.bin", first_request(folder)[0], b"\x00")


def lun_method(folder):
    poke(folder, "buffers.bin", first_request(folder)[0] + 2, b"\x90")


def task_attribute(folder):
    poke(folder, "buffers.bin", first_request(folder)[0] + 16, b"\x07")


def read_becomes_write(folder):
    poke(folder, "buffers.bin", first_request(folder)[0] + 19, b"\x2a")


def blocks_changed(folder):
    poke(folder, "buffers.bin", first_request(folder)[0] + 19 + 8, b"\x07")


def tag_of_another(folder):
    rows = json.loads((folder / "meta.json").read_text())["buffers"]
    first, second = [row["off"] for row in rows if row["saved"] == 51][:2]
    raw = (folder / "buffers.bin").read_bytes()
    poke(folder, "buffers.bin", first + 8, raw[second + 8 : second + 16])


def parts_disagree(folder):
    with edited(folder) as meta:
        row = next(row for row in meta["buffers"] if row["saved"] == 51)
        meta["buffers"].append(dict(row, gpa=row["gpa"] + 1, saved=50))


def meta_index_is_not_that_of_the_bytes(folder):
    with edited(folder) as meta:
        meta["queues"][2]["last-avail-idx"] = 1163


def inuse_is_not_that_of_the_bytes(folder):
    with edited(folder) as meta:
        meta["queues"][2]["inuse"] = 15


def ring_misplaced(folder):
    with edited(folder) as meta:
        meta["queues"][2]["vring-used"] += 2


WRONG = {
    avail_idx_jumps: "BAD_AVAIL_INDEX",
    head_out_of_range: "BAD_HEAD",
    head_is_there_twice: "HEAD_TWICE",
    used_idx_moved: "INDEX_MISMATCH",
    used_id_out_of_range: "USED_ID_RANGE",
    table_length_odd: "BAD_TABLE_LENGTH",
    table_elsewhere: "ZERO_LENGTH",
    table_outside_memory: "BAD_TABLE_ADDRESS",
    request_elsewhere: "NOT_SAVED",
    data_readable: "BAD_ORDER",
    response_too_short: "SHORT_RESPONSE",
    request_too_short: "SHORT_REQUEST",
    lun_is_not_one: "BAD_LUN",
    lun_method: "BAD_LUN",
    task_attribute: "BAD_TASK_ATTR",
    read_becomes_write: "WRONG_DIRECTION",
    blocks_changed: "WRONG_LENGTH",
    tag_of_another: "TAG_TWICE",
    parts_disagree: "CONTRADICTION",
    meta_index_is_not_that_of_the_bytes: "INDEX_MISMATCH",
    inuse_is_not_that_of_the_bytes: "INDEX_MISMATCH",
    ring_misplaced: "BAD_RING_ALIGNMENT",
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_wrong_bytes_get_a_verdict_and_exit_code_1(spoil, tmp_path, capsys):
    folder = copy(READS, tmp_path)
    spoil(folder)
    code, out, err = run(capsys, folder)
    assert (code, err) == (1, "")
    lines = [line.split(": ") for line in out.splitlines()]
    assert any(line[0] == "verdict" and WRONG[spoil] in line for line in lines), out


def test_what_only_vhost_refuses(tmp_path):
    """QEMU looks for INDIRECT in the ring alone, vhost in every table as well."""
    for name, verdicts in ((READS, []), (VHOST, ["NESTED_TABLE"])):
        folder = copy(name, tmp_path)
        poke(folder, "buffers.bin", first_indirect_table(folder) + 12, le(1 | 4))
        assert [row["verdict"] for row in report_of(folder)["verdicts"]] == verdicts


def slot(index):
    return 16 * (index % 256)


WRONG_PACKED = {
    "id of the last descriptor": ((249, 12), le(999), "BAD_BUFFER_ID"),
    "a readable one behind a writable one": ((249, 12 + 2), le(0x0080 ^ 0x8080), "BAD_ORDER"),
    "not available any more": ((250, 14), le(0x0080), "INDEX_MISMATCH"),
    "length zero": ((247, 8), le(0, 4), "ZERO_LENGTH"),
    "outside memory": ((248, 0), le(1 << 63, 8), "BAD_BUFFER_ADDRESS"),
}


@pytest.mark.parametrize("case", WRONG_PACKED)
def test_wrong_bytes_in_a_packed_ring(case, tmp_path):
    (index, offset), data, verdict = WRONG_PACKED[case]
    folder = copy(WRAPPED, tmp_path)
    poke(folder, "q2_desc.bin", slot(index) + offset, data)
    assert verdict in [row["verdict"] for row in report_of(folder)["verdicts"]]


def test_every_verdict_of_a_capture_is_shown_by_a_test_and_in_the_documents():
    documents = (HERE.parent / "docs" / "reference" / "captures.md").read_text()
    for name, meaning in inspection.VERDICTS.items():
        assert name in WRONG.values(), f"no test shows {name}"
        assert f"| {name} | {meaning} |" in documents


# ------------------------------------------------------------------- out of order, not set up


def test_a_device_that_completes_out_of_order(tmp_path):
    """The oldest request, head 5, stays in flight while the next, 13, is used and published again.

    Then head 13 stands twice between used.idx and avail.idx, and head 5 not at all.
    """
    folder = copy(READS, tmp_path)
    avail = (folder / "q2_avail.bin").read_bytes()
    ring = list(struct.unpack("<256H", avail[4 : 4 + 512]))
    ring[1162 % 256] = 13
    poke(folder, "q2_avail.bin", 2, le(1163))
    poke(folder, "q2_avail.bin", 4, struct.pack("<256H", *ring))
    poke(folder, "q2_used.bin", 4 + 8 * (1146 % 256), le(13, 4) + le(0, 4))
    poke(folder, "q2_used.bin", 2, le(1147))
    with edited(folder) as meta:
        meta["queues"][2] |= {"used-idx": 1147, "last-avail-idx": 1163, "shadow-avail-idx": 1163}
    report = report_of(folder)
    assert report["verdicts"] == []
    heads = [row["head"] for row in in_flight(report)]
    assert len(heads) == 16
    assert (heads[0], heads[-1]) == (5, 13)


def test_a_queue_that_was_not_set_up_needs_no_files(tmp_path):
    folder = copy(DIRECT, tmp_path)
    for part in ("desc", "avail", "used"):
        (folder / f"q0_{part}.bin").unlink()
    with edited(folder) as meta:
        meta["queues"][0] |= {"vring-desc": 0, "vring-avail": 0, "vring-used": 0}
    report = report_of(folder)
    assert report["verdicts"] == []
    assert report["queues"][0]["available"] == 0


# ----------------------------------------------------------------------------- unreadable ones


@pytest.mark.parametrize("file", sorted(path.name for path in (SMALL / READS).iterdir()))
@pytest.mark.parametrize("how", ["missing", "truncated", "a folder"])
def test_files_that_are_not_whole(file, how, tmp_path, capsys):
    folder = copy(READS, tmp_path)
    raw = (folder / file).read_bytes()
    (folder / file).unlink()
    if how == "truncated":
        (folder / file).write_bytes(raw[: len(raw) // 2])
    elif how == "a folder":
        (folder / file).mkdir()
    code, out, err = run(capsys, folder)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert file in err
    assert err.count("\n") == 1


NONSENSE = [
    None, True, -1, 2**40, 2**64, 10**400, 1.5, float("nan"), "x", "", [], [1], {}, {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:20])
def test_nonsense_values_in_meta(value, tmp_path, capsys):
    """Every key of meta.json with this value: readable, wrong or refused, and never a traceback."""
    folder = copy(READS, tmp_path)
    text = (folder / "meta.json").read_text()
    places = [("top", key) for key in json.loads(text)]
    places += [("queues", key) for key in json.loads(text)["queues"][2]]
    places += [("buffers", key) for key in json.loads(text)["buffers"][0]]
    for table, key in places:
        meta = json.loads(text)
        row = meta if table == "top" else meta[table][-1]
        row[key] = value
        (folder / "meta.json").write_text(json.dumps(meta))
        code, _, err = run(capsys, folder)
        assert code in (0, 1, 2), (table, key)
        assert (err.count("\n") == 1) == (code == 2), (table, key, err)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "\x00"]
)
def test_meta_that_is_no_object(text, tmp_path, capsys):
    folder = copy(READS, tmp_path)
    (folder / "meta.json").write_text(text)
    code, _, err = run(capsys, folder)
    assert code == 2
    assert err.startswith(f"error: {folder / 'meta.json'}: ")
    assert err.count("\n") == 1


def test_meta_that_is_not_utf8(tmp_path, capsys):
    folder = copy(READS, tmp_path)
    (folder / "meta.json").write_bytes(b"\xff\xfe{}")
    code, _, err = run(capsys, folder)
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layout": "packed: ring"}, "RING_PACKED"),
        ({"guest_features_bits": [1, 2]}, "guest_features_bits"),
        ({"guest_features_hex": "0x1" + 16 * "0"}, "guest_features_hex"),
    ],
)
def test_meta_that_contradicts_itself(change, word, tmp_path):
    folder = copy(READS, tmp_path)
    with edited(folder) as meta:
        meta |= change
    with pytest.raises(ConfigError, match=word):
        read_capture(folder)


def test_a_packed_queue_that_vhost_runs_is_refused(tmp_path):
    folder = copy(PACKED, tmp_path)
    with edited(folder) as meta:
        del meta["queues"][2]["shadow-avail-idx"]
    with pytest.raises(ConfigError, match="vhost-user"):
        read_capture(folder)


@pytest.mark.parametrize("size", [3, 0, 32769])
def test_ring_sizes_that_cannot_be(size, tmp_path):
    folder = copy(READS, tmp_path)
    with edited(folder) as meta:
        meta["queues"][2]["vring-num"] = size
    with pytest.raises(ConfigError, match="vring-num"):
        read_capture(folder)


def test_memory_is_reserved_not_used():
    """A capture with addresses all over 1 TiB costs what it holds."""
    capture = read_capture(SMALL / READS)
    assert capture.memory.size >= 1 << 32
    assert ADDRESS_LIMIT == 1 << 40


def test_saved_stretches_grow_together():
    saved = Saved([(100, 10), (110, 5), (0, 4), (2, 1)])
    assert saved.covers(100, 15)
    assert saved.covers(0, 4)
    assert not saved.covers(99, 2)
    assert not saved.covers(110, 6)
    assert not saved.covers(50, 1)
    assert saved.covers(50, 0)


# ----------------------------------------------------------------------------------------- fuzz


def spoiled(folder, dice):
    """Something goes wrong with one of the files."""
    file = dice.choice(sorted(path.name for path in folder.iterdir()))
    raw = bytearray((folder / file).read_bytes())
    kind = dice.choice(["bits", "bits", "bits", "word", "cut", "zeros"])
    if not raw:
        return
    if kind == "bits":
        for _ in range(dice.choice([1, 1, 2, 20])):
            raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    elif kind == "word":
        at = dice.randrange(len(raw))
        raw[at : at + 4] = le(dice.choice([0, 1, 4, 0x7FFFFFFF, 0xFFFFFFFF, 0x80008000]), 4)
    elif kind == "cut":
        del raw[dice.randrange(len(raw)) :]
    else:
        at = dice.randrange(len(raw))
        raw[at : at + dice.randrange(1, 200)] = bytes(min(200, len(raw) - at))
    (folder / file).write_bytes(raw)


def fuzz(seed, tmp_path, capsys):
    dice = random.Random(seed)
    folder = copy(dice.choice(NAMES), tmp_path)
    for _ in range(dice.choice([1, 1, 3])):
        spoiled(folder, dice)
    code, _, err = run(capsys, folder)
    shutil.rmtree(folder)
    assert code in (0, 1, 2)
    assert err.count("\n") == (code == 2), err
    return code


def test_whatever_goes_wrong_there_is_no_traceback(tmp_path, capsys):
    codes = [fuzz(seed, tmp_path, capsys) for seed in range(400)]
    assert {0, 1, 2} == set(codes)


@pytest.mark.long
def test_whatever_goes_wrong_often(tmp_path, capsys):
    for seed in range(20_000):
        fuzz(seed, tmp_path, capsys)
