"""What vhost-scsi makes of a request, by byte count; control and event structures; LUN fields.

The classification table and the byte pictures are worked out from drivers/vhost/scsi.c by hand.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import layout, scsi
from sim.formats.sense import parse_sense
from sim.initiator import PATTERN, Initiator, header
from sim.lio.spec import LunSpec

MIB = 1 << 20
TUR = bytes(6)
READ_8 = bytes.fromhex("28 00 00 00 10 00 00 00 08 00")
WRITE_8 = bytes.fromhex("2a 00 00 00 10 00 00 00 08 00")
GOOD = bytes(108)


def desk(**options):
    return Initiator([LunSpec(size=1 << 30)], **options)


def check(picture, at=0):
    """A response: zeroes, and the bytes of the picture from `at` on."""
    return bytes(at) + bytes.fromhex(picture) + bytes(108 - at - len(bytes.fromhex(picture)))


# --------------------------------------------------------------------------------------- the header


def test_the_header_of_a_read():
    tag = 0x1122334455667788
    assert header(READ_8, tag=tag) == bytes.fromhex(
        "01 00 40 00 00 00 00 00 88 77 66 55 44 33 22 11 00 00 00"
        "28 00 00 00 10 00 00 00 08 00" + "00" * 22
    )


def test_the_header_with_protection_information_has_its_lengths_before_the_cdb():
    head = header(READ_8, protection=(0, 64))
    assert len(head) == 59
    assert head[19:27] == bytes.fromhex("00 00 00 00 40 00 00 00")
    assert head[27:37] == READ_8


@pytest.mark.parametrize(
    ("target", "lun", "field"),
    [
        (0, 0, "01 00 40 00"),
        (5, 3, "01 05 40 03"),
        (5, 255, "01 05 40 ff"),
        (5, 256, "01 05 41 00"),
        (5, 300, "01 05 41 2c"),
        (5, 16383, "01 05 7f ff"),
    ],
)
def test_linux_writes_and_vhost_reads_a_lun(target, lun, field):
    assert header(TUR, target=target, lun=lun)[:4] == bytes.fromhex(field)
    assert scsi.lun_of(np.frombuffer(bytes.fromhex(field), dtype=np.uint8), 0) == lun


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("01 05 00 03", "lun 3"),
        ("01 05 40 03", "lun 3"),
        ("01 05 80 03", "lun 3"),  # the method bits are not looked at
        ("01 05 01 00", "lun 256"),
        ("01 05 40 04", "no lun"),
        ("01 04 40 03", "bad_target"),
        ("c1 01 00 00", "bad_target"),  # REPORT LUNS well-known logical unit
        ("00 05 40 03", "bad_target"),
    ],
)
def test_vhost_finds_a_lun_by_its_field(field, answer):
    sizes = {3: MIB, 256: 2 * MIB}
    target = Initiator([LunSpec(target=5, number=n, size=size) for n, size in sizes.items()])
    head = bytes.fromhex(field + "00000000") + header(bytes.fromhex("25" + "00" * 9))[8:]
    reply = target.submit([head], [108, 8])
    if answer == "no lun":
        assert str(reply.sense).startswith("5/25/00")
    elif answer == "bad_target":
        assert reply.outcome == answer
    else:
        last = int.from_bytes(reply.data[:4], "big")
        assert last == sizes[int(answer.split()[1])] // 512 - 1


def test_event_luns():
    assert scsi.event_lun(5, 3) == bytes.fromhex("01 05 00 03 00 00 00 00")
    assert scsi.event_lun(5, 255)[:4] == bytes.fromhex("01 05 00 ff")
    assert scsi.event_lun(5, 256)[:4] == bytes.fromhex("01 05 41 00")
    assert scsi.event_lun(5, 300)[:4] == bytes.fromhex("01 05 41 2c")
    assert scsi.event_lun(5, 16383)[:4] == bytes.fromhex("01 05 7f ff")
    # Linux takes an event's LUN without its mask.
    assert scsi.linux_event_lun(bytes.fromhex("01 05 41 00 00 00 00 00")) == 16640
    assert scsi.linux_event_lun(bytes.fromhex("01 05 00 03 00 00 00 00")) == 3


# ---------------------------------------------------------------------------------- classification


@pytest.mark.parametrize(
    ("out", "into", "outcome"),
    [
        (51, 108, "answered"),
        (51, 4204, "from device"),
        (4147, 108, "to device"),
        (4147, 4204, "to device"),  # bidirectional is a write
        (50, 108, "bad_target"),
        (51, 107, "dropped"),
        (50, 107, "dropped"),  # the response is looked at first
    ],
)
def test_a_request_is_classified_by_byte_count(out, into, outcome):
    cdb = {"from device": READ_8, "to device": WRITE_8}.get(outcome, TUR)
    request = (header(cdb) + b"\x11" * 4096)[:out]
    target = desk()
    reply = target.submit([request], [into])
    if outcome in ("bad_target", "dropped"):
        assert reply.outcome == outcome
        return
    assert reply.response == GOOD
    if outcome == "to device":
        assert reply.data == bytes([PATTERN]) * (into - 108)
        read = target.send(READ_8, data_in=4096)
        assert all(read.data[i : i + 8] == b"\x11" * 8 for i in range(0, 4096, 512))


def test_a_header_and_a_response_may_be_cut_anywhere():
    whole = desk().submit([header(READ_8)], [108, 4096])
    head = header(READ_8)
    for out, into in (
        ([head[:20], head[20:]], [8, 100, 4096]),
        ([head[:1], b"", head[1:50], head[50:]], [107, 1, 4096]),
        ([bytes([byte]) for byte in head], [1] * 108 + [4096]),
        ([head], [4204]),  # data follow the response in the same buffer
        ([head], [150, 4054]),
    ):
        reply = desk().submit(out, into)
        assert (reply.response, reply.data) == (whole.response, whole.data), into


def test_data_that_windows_cuts_at_odd_places_need_a_bounce_buffer():
    # 4096 bytes that begin 255 bytes into a page: segments of 3841 and 255 bytes.
    whole = desk().submit([header(READ_8)], [108, 4096])
    cut = desk().submit([header(READ_8)], [108, 3841, 255])
    assert (cut.response, cut.data) == (whole.response, whole.data)
    old = desk(bugs="no_bounce").submit([header(READ_8)], [108, 3841, 255])
    assert str(old.sense).startswith("2/08/00")
    aligned = desk(bugs="no_bounce").submit([header(READ_8)], [108, 3584, 512])
    assert (aligned.response, aligned.data) == (whole.response, whole.data)


def test_a_response_is_written_across_its_buffers_also_when_it_is_an_error():
    cdb = bytes.fromhex("28 00 00 1f ff ff 00 00 02 00")
    whole = desk().submit([header(cdb)], [108, 1024])
    cut = desk().submit([header(cdb)], [8, 17, 83, 1024])
    assert cut.response == whole.response
    assert str(cut.sense).startswith("5/21/00")


def test_header_and_data_may_share_a_buffer():
    target = desk()
    assert target.submit([header(WRITE_8) + b"\x22" * 4096], [108]).response == GOOD
    assert target.submit([header(WRITE_8)[:30], header(WRITE_8)[30:] + b"\x22" * 4096],
                         [108]).response == GOOD  # fmt: skip
    assert target.send(READ_8, data_in=4096).data[:8] == b"\x22" * 8


def test_bytes_behind_a_response_that_is_too_short_are_its_continuation():
    """A 100-byte response followed by data is not dropped: 8 bytes of it spill into the data."""
    reply = desk().submit([header(READ_8)], [100, 4096])
    assert reply.outcome == "answered"
    assert reply.resid == 8  # the CDB wants 4096, behind the response there are 4088


def test_linux_before_7_2_writes_bad_target_past_a_short_buffer():
    """vhost_scsi_send_bad_target() copied 108 bytes to the first writable buffer, however short."""
    bad = header(TUR, target=9)
    old, new = desk(kernel="6.12"), desk(kernel="7.2")
    for target in (old, new):
        assert target.submit([bad], [8, 100]).outcome == "bad_target"
    for target, spilt in ((old, True), (new, False)):
        (at, _), (second, _) = target.places[1:]
        assert (target.mem[at + 11] == 3) == spilt
        assert (target.mem[second + 3] == 3) == (not spilt)


def test_data_that_cannot_be_mapped():
    """More than 2048 pages: dropped without an answer; Linux 6.1 answers BAD_TARGET."""
    for kernel, outcome in (("6.1", "bad_target"), ("6.12", "dropped"), ("7.2", "dropped")):
        target = desk(kernel=kernel, memory=32 * MIB)
        assert target.submit([header(READ_8)], [108, 8 * MIB + 512]).outcome == outcome
        assert target.submit([header(READ_8)], [108, 4096]).outcome == "answered"


def test_a_cdb_longer_than_32_bytes_is_a_bad_target():
    too_long = bytes.fromhex("7f 00 00 00 00 00 00 19 00 0d").ljust(32, b"\0")
    fits = bytes.fromhex("7f 00 00 00 00 00 00 18 00 ff").ljust(32, b"\0")
    assert desk().send(too_long).outcome == "bad_target"
    assert str(desk().send(fits).sense).startswith("5/20/00")


@pytest.mark.parametrize(
    ("protection", "out", "into", "answer"),
    [
        ((0, 0), 0, 4096, "answered"),
        ((0, 64), 0, 64 + 4096, "answered"),
        ((64, 0), 64 + 4096, 0, "answered"),
        ((64, 0), 0, 64 + 4096, "bad_target"),  # wrong direction
        ((0, 64), 64 + 4096, 0, "bad_target"),
        ((0, 4096), 0, 4096, "bad_target"),  # nothing but protection information
        ((0, 5000), 0, 4096, "bad_target"),
    ],
)
def test_protection_information(protection, out, into, answer):
    cdb = WRITE_8 if out else READ_8
    target = desk(t10_pi=True)
    sizes = [108, into] if into else [108]
    reply = target.submit([header(cdb, protection=protection), bytes(out)], sizes)
    assert reply.outcome == answer
    if answer == "answered" and into:
        skipped = protection[1]
        assert reply.data[:skipped] == bytes([PATTERN]) * skipped
        assert reply.data[skipped : skipped + 8] == (-1 - 0x1000).to_bytes(8, "little", signed=True)


def test_a_header_of_51_bytes_is_too_short_with_protection_information():
    assert desk(t10_pi=True).submit([header(TUR)], [108]).outcome == "bad_target"


# ----------------------------------------------------------------------------------- byte pictures


def test_pictures_of_responses():
    target = desk()
    assert target.send(TUR, target=7).response == check("03", at=11)
    short = target.send(READ_8, data_in=4096 + 512)
    assert short.response == check("00 02 00 00", at=4)
    beyond = target.send(bytes.fromhex("28 00 00 1f ff ff 00 00 02 00"), data_in=1024)
    sense = "70 00 05 00 00 00 00 0a 00 00 00 00 21 00 00 00 00 00"
    assert beyond.response == check("60 00 00 00 00 00 00 00 00 00 02 00" + sense)
    unknown = target.send(TUR, lun=3)
    assert unknown.response[24:26] == bytes.fromhex("25 00")
    assert unknown.code == 0


@pytest.mark.parametrize(
    ("sense", "info", "descriptor", "picture"),
    [
        (0x052100, -1, 0, "70 00 05 00 00 00 00 0a 00 00 00 00 21 00 00 00 00 00"),
        (0x0E1D00, 16, 0, "f0 00 0e 00 00 00 10 0a 00 00 00 00 1d 00 00 00 00 00"),
        (0x020800, -1, 0, "70 00 02 00 00 00 00 0a 00 00 00 00 08 00 00 00 00 00"),
        (0x052100, -1, 1, "72 05 21 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
        (0x0E1D00, 16, 1, "72 0e 1d 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 00 10"),
    ],
)
def test_sense_is_built_and_read(sense, info, descriptor, picture):
    wanted = bytes.fromhex(picture)
    built = bytes(int(scsi.sense_byte(i, sense, info, descriptor)) for i in range(96))
    assert built == wanted.ljust(96, b"\0")
    parsed = parse_sense(built)
    assert (parsed.key << 16 | parsed.asc << 8 | parsed.ascq) == sense
    assert parsed.information == (None if info < 0 else info)
    mem = np.full(256, 0xAA, dtype=np.uint8)
    scsi.write_response(mem, None, 0, 16, 0, 2, 512, sense, info, descriptor)
    bytewise = bytes(
        int(scsi.response_byte(i, 0, 2, 512, sense, info, descriptor)) for i in range(108)
    )
    assert mem[16:124].tobytes() == bytewise
    assert bytewise[12:] == built


# ----------------------------------------------------------------------------------- control queue


def luns_of_target_5():
    return Initiator([LunSpec(target=5, number=3, size=MIB)], nexuses=2)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("00000000 05000000 0105400300000000 0000000000000000", "0a"),  # LOGICAL UNIT RESET
        ("00000000 00000000 0105400300000000 8877665544332211", "0b"),  # ABORT TASK
        ("00000000 05000000 0105400400000000 0000000000000000", "0b"),  # no such LUN
        ("00000000 05000000 0104400300000000 0000000000000000", "03"),  # no such target
        ("00000000 05000000 0005400300000000 0000000000000000", "03"),
        ("02000000 0105400300000000 02000000", "0000000000"),  # AN SUBSCRIBE
        ("01000000 0109400300000000 02000000", "0000000000"),  # AN QUERY: target not looked at
        ("03000000 0105400300000000 02000000", None),  # no such type
        ("0000", None),
        ("00000000 05000000", "03"),  # too short
    ],
)
def test_control_queue(request_, answer):
    reply = luns_of_target_5().control(bytes.fromhex(request_))
    assert reply == (None if answer is None else bytes.fromhex(answer))


def test_a_control_request_without_room_for_its_answer_is_dropped():
    reset = bytes.fromhex("00000000 05000000 0105400300000000 0000000000000000")
    assert luns_of_target_5().control(reset, into=0) is None


def test_a_lun_reset_is_heard_of_by_every_nexus_once():
    target = luns_of_target_5()
    reset = bytes.fromhex("00000000 05000000 0105400300000000 0000000000000000")
    assert target.control(reset) == b"\x0a"
    for nexus in (0, 1):
        inquiry = target.send(bytes.fromhex("12 00 00 00 24 00"), data_in=36, target=5, lun=3)
        assert inquiry.status == 0
        first = target.send(TUR, target=5, lun=3, nexus=nexus)
        assert str(first.sense) == "6/29/03 UNIT ATTENTION, BUS DEVICE RESET FUNCTION OCCURRED"
        assert target.send(TUR, target=5, lun=3, nexus=nexus).status == 0


def test_structures_of_the_control_and_event_queue():
    assert (layout.TMF_REQ_SIZE, layout.TMF_RESP_SIZE) == (24, 1)
    assert (layout.AN_REQ_SIZE, layout.AN_RESP_SIZE, layout.EVENT_SIZE) == (16, 5, 16)
    assert scsi.tmf_request(layout.TMF_LOGICAL_UNIT_RESET, 5, 3) == bytes.fromhex(
        "00000000 05000000 0105400300000000 0000000000000000"
    )
    assert scsi.an_request(layout.T_AN_SUBSCRIBE, 5, 3, 2) == bytes.fromhex(
        "02000000 0105400300000000 02000000"
    )
    lun = scsi.event_lun(5, 3)
    removed = layout.EVENT_TRANSPORT_RESET | layout.EVENTS_MISSED
    for event, where, reason, picture in (
        (layout.EVENT_TRANSPORT_RESET, lun, layout.RESET_RESCAN,
         "01000000 0105000300000000 01000000"),
        (removed, lun, layout.RESET_REMOVED, "01000080 0105000300000000 02000000"),
        (layout.EVENTS_MISSED, bytes(8), 0, "00000080 0000000000000000 00000000"),
        (layout.EVENT_PARAM_CHANGE, lun, 0x092A, "03000000 0105000300000000 2a090000"),
    ):  # fmt: skip
        assert scsi.event(event, where, reason) == bytes.fromhex(picture)


# -------------------------------------------------------------------------------------- robustness


SIZES = st.lists(st.integers(0, 700), max_size=6)


@given(
    cdb=st.binary(min_size=32, max_size=32),
    opcode=st.none() | st.sampled_from(sorted({c for c in range(256) if c >> 5 != 3})),
    out=SIZES,
    into=SIZES,
    cut=st.integers(0, 51),
    attribute=st.integers(0, 255),
    kernel=st.sampled_from(["6.1", "6.12", "7.2"]),
    fill=st.binary(min_size=1, max_size=8),
)
def test_any_request_is_answered_within_its_buffers(
    cdb, opcode, out, into, cut, attribute, kernel, fill
):
    if opcode is not None:
        cdb = bytes([opcode]) + cdb[1:]
    target = Initiator(
        [LunSpec(size=MIB, thin=True, write_cache=True)], kernel=kernel, memory=1 << 18
    )
    head = header(cdb, attribute=attribute)
    content = [(fill * 700)[:size] for size in out]
    reply = target.submit([head[:cut], head[cut:], *content], into)
    writable = sum(into)
    if writable < 108:
        assert reply.outcome == "dropped"
    elif reply.outcome == "answered":
        assert reply.status in (0x00, 0x02, 0x18)
        assert (reply.status == 2) == (reply.sense is not None)
        assert len(reply.response) == 108
        assert 0 <= reply.length <= writable - 108
        if reply.status == 0 and reply.length:
            assert reply.length + reply.resid >= writable - 108
    mem = target.mem.copy()
    for number, (at, size) in enumerate(target.places):
        if number < 2 + len(out):
            assert mem[at : at + size].tobytes() == ([head[:cut], head[cut:], *content])[number]
        first = number == 2 + len(out) and reply.outcome == "bad_target" and kernel != "7.2"
        mem[at : at + (max(size, 108) if first else size)] = PATTERN
    assert (mem == PATTERN).all()
