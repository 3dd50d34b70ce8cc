"""Every command of the subset: its data, residual, status and sense, as LIO gives them.

Expected bytes are those of V19 and of sections 8.1 to 8.5 of the facts, or are worked out by hand
from SPC-4, SBC-3 and target_core_spc.c / target_core_sbc.c.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.formats import cdb as formats
from sim.formats.cdb import build, by_name
from sim.initiator import PATTERN, Initiator
from sim.lio.spec import LunSpec

GIB = 1 << 30
MIB = 1 << 20
GOOD = bytes(108)


def desk(kernel="6.12", **options):
    return Initiator([LunSpec(**{"size": GIB} | options)], kernel=kernel)


def ask(target, name, data_in=None, data_out=b"", at=None, **fields):
    """Send a command by name; room for data as the CDB says, unless `data_in` says otherwise."""
    command = by_name(name)
    cdb = build(command, fields)
    size = (at or {}).get("block_size", target.plan.luns[0].block_size if target.plan.luns else 512)
    if data_in is None:
        data_in = command.data_bytes(cdb, size) if command.data == "in" else 0
    place = {key: value for key, value in (at or {}).items() if key != "block_size"}
    return target.send(cdb, data_in=data_in, data_out=data_out, **place)


def sense_of(reply):
    """As people write it: key/asc/ascq; '' after GOOD; the status where there is no sense."""
    if reply.status == 0:
        return ""
    return str(reply.sense)[:7] if reply.sense else f"{reply.status:02x}h"


def transferred(reply):
    """The data that count. Behind them LIO writes nothing but the zeroes it begins with."""
    assert set(reply.data[reply.length :]) in ({0}, {PATTERN}, set())
    return reply.data[: reply.length]


def stamped(first, sectors=1):
    """Block data that differ from sector to sector."""
    return b"".join((first + i).to_bytes(8, "little").ljust(512, b"\x11") for i in range(sectors))


def stamps(data):
    """The word at the head of each sector."""
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 512)]


# ------------------------------------------------------------------------------------- V19, bytes


@pytest.mark.parametrize(
    ("name", "fields", "picture"),
    [
        ("INQUIRY", {"alloc": 36}, "12 00 00 00 24 00"),
        ("INQUIRY", {"evpd": 1, "page": 0, "alloc": 255}, "12 01 00 00 ff 00"),
        ("REPORT LUNS", {"alloc": 24}, "a0 00 00 00 00 00 00 00 00 18 00 00"),
        ("UNMAP", {"list_length": 24}, "42 00 00 00 00 00 00 00 18 00"),
        ("SYNCHRONIZE CACHE(10)", {}, "35 00 00 00 00 00 00 00 00 00"),
        ("COMPARE AND WRITE", {"lba": 0x1000, "blocks": 1},
         "89 00 00 00 00 00 00 00 10 00 00 00 00 01 00 00"),
        ("PERSISTENT RESERVE OUT REGISTER", {"list_length": 24}, "5f 00 00 00 00 00 00 00 18 00"),
        ("READ(10)", {"lba": 0x1FFFFF, "blocks": 2, "fua": 1}, "28 08 00 1f ff ff 00 00 02 00"),
        ("READ(6)", {"lba": 0x123456, "blocks": 8}, "08 12 34 56 08 00"),
        ("WRITE(16)", {"lba": 0x100000000, "blocks": 65536},
         "8a 00 00 00 00 01 00 00 00 00 00 01 00 00 00 00"),
        ("READ(12)", {"lba": 1, "blocks": 2}, "a8 00 00 00 00 01 00 00 00 02 00 00"),
        ("READ CAPACITY(16)", {"alloc": 32}, "9e 10" + " 00" * 11 + " 20 00 00"),
        ("MODE SENSE(10)", {"page": 0x3F, "pc": 1, "dbd": 1, "alloc": 255},
         "5a 08 7f 00 00 00 00 00 ff 00"),
        ("REPORT TARGET PORT GROUPS", {"alloc": 64}, "a3 0a 00 00 00 00 00 00 00 40 00 00"),
        ("WRITE SAME(32)", {"lba": 5, "blocks": 9},
         "7f 00 00 00 00 00 00 18 00 0d 00 00 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 00"
         "00 00 00 09"),
    ],
)  # fmt: skip
def test_v19_cdbs(name, fields, picture):
    cdb = build(by_name(name), fields)
    assert cdb == bytes.fromhex(picture)
    assert formats.identify(cdb).name == by_name(name).name


def test_every_command_is_built_and_told_apart():
    for command in formats.EVERY:
        cdb = build(command, {})
        assert formats.identify(cdb) == command
        assert len(cdb) == formats.cdb_size(cdb)
        for field in command.fields:
            if field.name not in ("sa", "additional"):
                full = build(command, {field.name: (1 << field.bits) - 1})
                assert field.get(full) == (1 << field.bits) - 1
                assert sum(b.bit_count() for b in full) - sum(b.bit_count() for b in cdb) == (
                    field.bits
                )


def test_v19_capacities():
    for size, thin, ten, sixteen in (
        (GIB, False, "00 1f ff ff", "00 00 00 00 00 1f ff ff 00 00 02 00 00 00 00 00"),
        (GIB, True, "00 1f ff ff", "00 00 00 00 00 1f ff ff 00 00 02 00 00 00 c0 00"),
        (4 << 40, False, "ff ff ff ff", "00 00 00 01 ff ff ff ff 00 00 02 00 00 00 00 00"),
        (2 << 40, False, "ff ff ff ff", "00 00 00 00 ff ff ff ff 00 00 02 00 00 00 00 00"),
    ):
        target = desk(size=size, thin=thin)
        assert transferred(ask(target, "READ CAPACITY(10)")) == bytes.fromhex(ten + "00 00 02 00")
        reply = ask(target, "READ CAPACITY(16)", alloc=32)
        assert transferred(reply) == bytes.fromhex(sixteen).ljust(32, b"\0")
        assert (reply.response, reply.resid) == (GOOD, 0)


@pytest.mark.parametrize(
    ("lba", "blocks", "sense"),
    [
        (0x1FFFFF, 1, ""),
        (0x1FFFFF, 2, "5/21/00"),
        (0x200000, 1, "5/21/00"),
        (0x200000, 0, ""),  # LIO's test is lba + blocks > last + 1
        (0x200001, 0, "5/21/00"),
        (0xFFFFFFFF, 0xFFFF, "5/21/00"),
    ],
)
def test_v19_ranges(lba, blocks, sense):
    target = desk()
    for name in ("READ(10)", "READ(12)", "READ(16)"):
        reply = ask(target, name, data_in=512 * min(blocks, 8), lba=lba, blocks=blocks)
        assert sense_of(reply) == sense, name
    for name in ("VERIFY(10)", "VERIFY(16)", "SYNCHRONIZE CACHE(10)", "SYNCHRONIZE CACHE(16)"):
        assert sense_of(ask(target, name, lba=lba, blocks=blocks)) == sense, name


def test_the_range_is_checked_before_the_length():
    reply = ask(desk(), "WRITE(10)", data_out=bytes(512), lba=0x200000, blocks=8)
    assert sense_of(reply) == "5/21/00"


def test_v19_residuals():
    target = desk()
    half = ask(target, "READ(10)", data_in=2048, blocks=8)
    assert (half.length, half.resid, half.status) == (2048, 2048, 0)
    write = ask(target, "WRITE(10)", data_out=bytes(2048), blocks=8)
    assert sense_of(write) == "5/0E/03"


def test_v19_report_luns():
    both = Initiator([LunSpec(number=0, size=MIB), LunSpec(number=3, size=MIB)])
    reply = ask(both, "REPORT LUNS", alloc=24)
    assert transferred(reply) == bytes.fromhex(
        "00 00 00 10 00 00 00 00   00 03 00 00 00 00 00 00   00 00 00 00 00 00 00 00"
    )
    assert reply.resid == 0
    far = Initiator([LunSpec(number=300, size=MIB)])
    assert transferred(ask(far, "REPORT LUNS", alloc=64, at={"lun": 300}))[8:10] == b"\x01\x2c"
    # The list is counted in full where the allocation length cuts it off.
    cut = ask(both, "REPORT LUNS", alloc=16)
    assert transferred(cut) == bytes.fromhex("00 00 00 10 00 00 00 00 00 03 00 00 00 00 00 00")


def test_v19_unmap():
    target = desk(thin=True)
    for name, lba in (("before", 0xFFF), ("inside", 0x1000), ("behind", 0x1008)):
        assert ask(target, "WRITE(10)", data_out=stamped(7), lba=lba, blocks=1).status == 0, name
    listed = bytes.fromhex("0016 0010 00000000 0000000000001000 00000008 00000000")
    reply = ask(target, "UNMAP", data_out=listed, list_length=24)
    assert reply.response == GOOD
    held = ask(target, "READ(10)", lba=0xFFF, blocks=10)
    assert stamps(held.data) == [7] + [0] * 8 + [7]


# ------------------------------------------------------------------------------------- READ, WRITE


@pytest.mark.parametrize("write", ["WRITE(6)", "WRITE(10)", "WRITE(12)", "WRITE(16)",
                                   "WRITE AND VERIFY(10)", "WRITE AND VERIFY(16)"])  # fmt: skip
@pytest.mark.parametrize("read", ["READ(6)", "READ(10)", "READ(12)", "READ(16)"])
def test_what_is_written_is_read(write, read):
    target = desk()
    reply = ask(target, write, data_out=stamped(100, 20), lba=4000, blocks=20)
    assert reply.response == GOOD
    assert stamps(ask(target, read, lba=4000, blocks=20).data) == list(range(100, 120))


def test_six_byte_forms_count_zero_blocks_as_256():
    target = desk()
    assert ask(target, "WRITE(6)", data_out=stamped(1, 256), lba=16, blocks=0).status == 0
    assert stamps(ask(target, "READ(6)", lba=16, blocks=0).data) == list(range(1, 257))
    for name in ("READ(10)", "READ(12)", "READ(16)"):
        assert ask(target, name, blocks=0).response == GOOD


def test_blocks_of_4096_bytes():
    target = desk(block_size=4096)
    assert transferred(ask(target, "READ CAPACITY(10)")) == bytes.fromhex("0003ffff 00001000")
    assert ask(target, "WRITE(10)", data_out=stamped(50, 16), lba=3, blocks=2).status == 0
    assert stamps(ask(target, "READ(10)", lba=3, blocks=2).data) == list(range(50, 66))
    assert sense_of(ask(target, "READ(10)", lba=0x40000, blocks=1)) == "5/21/00"
    assert sense_of(ask(target, "WRITE(10)", data_out=bytes(512), lba=3, blocks=1)) == "5/0E/03"
    assert ask(target, "WRITE SAME(10)", data_out=stamped(9, 8), lba=3, blocks=2).status == 0
    assert stamps(ask(target, "READ(10)", lba=3, blocks=2).data) == list(range(9, 17)) * 2


@pytest.mark.parametrize(
    ("name", "cdb_bytes", "data_in", "data_out", "sense", "length", "resid"),
    [
        # READ: what fits is transferred, either way the difference is the residual.
        ("READ(10)", 4096, 4096, 0, "", 4096, 0),
        ("READ(10)", 4096, 2048, 0, "", 2048, 2048),
        ("READ(10)", 4096, 8192, 0, "", 4096, 4096),
        ("READ(10)", 4096, 4096 - 100, 0, "", 3996, 100),
        ("READ(10)", 0, 4096, 0, "", 0, 4096),
        # WRITE: any mismatch is refused; the residual is told all the same.
        ("WRITE(10)", 4096, 0, 4096, "", 0, 0),
        ("WRITE(10)", 4096, 0, 2048, "5/0E/03", 0, 2048),
        ("WRITE(10)", 4096, 0, 8192, "5/0E/03", 0, 4096),
        ("WRITE(10)", 0, 0, 512, "5/0E/03", 0, 512),
        # No buffers at all.
        ("READ(10)", 4096, 0, 0, "", 0, 4096),
        ("WRITE(10)", 4096, 0, 0, "", 0, 4096),
    ],
)
def test_lengths_that_disagree(name, cdb_bytes, data_in, data_out, sense, length, resid):
    target = desk()
    reply = ask(target, name, data_in=data_in, data_out=bytes(data_out), blocks=cdb_bytes // 512)
    assert (sense_of(reply), reply.resid) == (sense, resid)
    if name == "READ(10)":
        assert reply.length == length
        assert reply.data[length:] == bytes([PATTERN]) * (data_in - length)


def test_lengths_that_disagree_in_commands_that_carry_a_list():
    target = desk(thin=True)
    listed = bytes.fromhex("0016 0010 00000000 0000000000001000 00000008 00000000")
    more = ask(target, "UNMAP", data_out=listed, list_length=32)  # the CDB says more: refused
    assert (sense_of(more), more.resid) == ("5/24/00", 8)
    less = ask(target, "UNMAP", data_out=listed + bytes(8), list_length=24)
    assert (sense_of(less), less.resid) == ("", 8)


def test_a_lun_may_refuse_an_overflow_as_the_kernel_does():
    """transport_generic_map_mem_to_cmd() refuses what vhost-scsi brings too few buffers for."""
    reply = ask(desk(refuse_overflow=True), "READ(10)", data_in=2048, blocks=8)
    assert (sense_of(reply), reply.resid) == ("5/24/00", 2048)


def test_the_buffers_decide_whether_blocks_are_read_or_written():
    target = desk()
    assert ask(target, "READ(10)", data_in=0, data_out=stamped(3), lba=9, blocks=1).status == 0
    assert stamps(ask(target, "WRITE(10)", data_in=512, lba=9, blocks=1).data) == [3]


@pytest.mark.parametrize("flag", ["fua", "dpo"])
def test_dpo_and_fua_need_a_write_cache(flag):
    for name in ("READ(10)", "READ(16)", "WRITE(10)", "WRITE(12)", "COMPARE AND WRITE"):
        data = {"data_out": bytes(1024 if name[0] == "C" else 512)} if name[0] != "R" else {}
        assert sense_of(ask(desk(), name, **data, blocks=1, **{flag: 1})) == "5/24/00"
        cached = desk(write_cache=True)
        if name[0] == "C":
            data["data_out"] = cached.held(cached.plan.luns[0], 0, 1) + bytes(512)
        assert sense_of(ask(cached, name, **data, blocks=1, **{flag: 1})) == ""


def test_protection_is_not_there():
    assert sense_of(ask(desk(), "READ(10)", blocks=1, protect=1)) == "5/24/00"


def test_a_write_protected_lun_refuses_any_data_out():
    target = desk(write_protected=True)
    assert sense_of(ask(target, "WRITE(10)", data_out=bytes(512), blocks=1)) == "7/27/00"
    assert sense_of(ask(target, "MODE SELECT(6)", data_out=bytes(24), list_length=24)) == "7/27/00"
    assert ask(target, "READ(10)", blocks=1).status == 0
    assert transferred(ask(target, "MODE SENSE(6)", page=8, alloc=64))[2] == 0x80


# ---------------------------------------------------------- WRITE SAME, UNMAP, COMPARE AND WRITE


@pytest.mark.parametrize("name", ["WRITE SAME(10)", "WRITE SAME(16)", "WRITE SAME(32)"])
def test_write_same_repeats_a_block(name):
    target = desk()
    assert ask(target, name, data_out=stamped(42), lba=10, blocks=5).response == GOOD
    held = stamps(ask(target, "READ(10)", lba=9, blocks=7).data)
    assert held[1:6] == [42] * 5
    assert 42 not in (held[0], held[6])


@pytest.mark.parametrize(
    ("options", "data", "fields", "sense"),
    [
        ({}, 512, {"blocks": 0}, "5/24/00"),  # WSNZ
        ({}, 512, {"blocks": 1, "lba": 0x200000}, "5/21/00"),
        ({"max_write_same": 8}, 512, {"blocks": 9}, "5/24/00"),
        ({}, 512, {"blocks": 1, "anchor": 1}, "5/24/00"),
        ({}, 512, {"blocks": 1, "ndob": 1}, "5/24/00"),
        ({}, 512, {"blocks": 1, "unmap": 1}, "5/20/00"),  # emulate_tpws is off
        ({"thin": True}, 512, {"blocks": 1, "unmap": 1}, ""),
        ({}, 512, {"blocks": 1, "protect": 1}, "5/24/00"),
        ({}, 1024, {"blocks": 1}, "5/24/00"),  # more than a block (iblock)
        ({}, 256, {"blocks": 1}, "5/24/00"),
    ],
)
def test_write_same_is_checked(options, data, fields, sense):
    reply = ask(desk(**options), "WRITE SAME(16)", data_out=bytes(data), **fields)
    assert sense_of(reply) == sense


def test_write_same_with_unmap_reads_as_zeroes():
    target = desk(thin=True)
    ask(target, "WRITE(10)", data_out=stamped(1, 8), blocks=8)
    unmapped = ask(target, "WRITE SAME(10)", data_out=stamped(5), lba=2, blocks=3, unmap=1)
    assert unmapped.response == GOOD
    assert stamps(ask(target, "READ(10)", blocks=8).data) == [1, 2, 0, 0, 0, 6, 7, 8]


def unmap_list(*ranges):
    body = b"".join(
        lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4) for lba, blocks in ranges
    )
    return (6 + len(body)).to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes(4) + body


@pytest.mark.parametrize(
    ("options", "data", "fields", "sense"),
    [
        ({"thin": False}, unmap_list((0, 1)), {}, "5/20/00"),
        ({}, b"", {}, ""),
        ({}, bytes(4), {}, "5/1A/00"),
        ({}, unmap_list(), {}, ""),
        ({}, unmap_list((0, 1)), {"anchor": 1}, "5/24/00"),
        ({}, unmap_list((0x1FFFFF, 2)), {}, "5/21/00"),
        ({}, unmap_list((1 << 63, 1)), {}, "5/21/00"),
        ({}, unmap_list((0, 1), (5, 1)), {}, "5/26/00"),  # iblock takes one range
        ({"max_unmap_ranges": 2}, unmap_list((0, 1), (5, 1)), {}, ""),
        ({"max_unmap_blocks": 8}, unmap_list((0, 9)), {}, "5/26/00"),
        ({}, unmap_list((7, 0)), {}, ""),
    ],
)
def test_unmap_is_checked(options, data, fields, sense):
    target = desk(**{"thin": True} | options)
    reply = ask(target, "UNMAP", data_out=data, list_length=len(data), **fields)
    assert sense_of(reply) == sense


def test_unmap_of_several_ranges_and_with_blocks_of_4096():
    target = desk(thin=True, max_unmap_ranges=4, block_size=4096)
    ask(target, "WRITE(10)", data_out=stamped(1, 32), blocks=4)
    listed = unmap_list((0, 1), (2, 2))
    assert ask(target, "UNMAP", data_out=listed, list_length=len(listed)).response == GOOD
    held = stamps(ask(target, "READ(10)", blocks=4).data)
    assert held == [0] * 8 + list(range(9, 17)) + [0] * 16


def test_compare_and_write():
    target = desk()
    ask(target, "WRITE(10)", data_out=stamped(0x1122334455667788), lba=7, blocks=1)
    same = stamped(0x1122334455667788) + stamped(6)
    assert ask(target, "COMPARE AND WRITE", data_out=same, lba=7, blocks=1).response == GOOD
    assert stamps(ask(target, "READ(10)", lba=7, blocks=1).data) == [6]
    again = ask(target, "COMPARE AND WRITE", data_out=same, lba=7, blocks=1)
    assert (sense_of(again), again.sense.information) == ("E/1D/00", 0)
    assert stamps(ask(target, "READ(10)", lba=7, blocks=1).data) == [6]
    third = stamped(0x99000006) + stamped(6)  # little-endian: byte 3 is the first that differs
    differs = ask(target, "COMPARE AND WRITE", data_out=third, lba=7, blocks=1)
    assert differs.sense.information == 3
    assert differs.response[12] == 0xF0


@pytest.mark.parametrize(
    ("data", "fields", "sense"),
    [
        (2048, {"blocks": 2}, "5/24/00"),
        (512, {"blocks": 1}, "5/0E/03"),
        (1024, {"blocks": 1, "lba": 0x200000}, "5/21/00"),
        (0, {"blocks": 0}, ""),
    ],
)
def test_compare_and_write_is_checked(data, fields, sense):
    assert sense_of(ask(desk(), "COMPARE AND WRITE", data_out=bytes(data), **fields)) == sense


# ---------------------------------------------------------------------------------------- INQUIRY


def test_standard_inquiry():
    reply = ask(desk(), "INQUIRY", alloc=36)
    data = transferred(reply)
    assert data[:8] == bytes.fromhex("00 00 06 02 5b b8 00 02")
    assert data[8:36] == b"LIO-ORG IBLOCK          4.0 "
    assert (len(data), reply.resid) == (36, 0)
    whole = ask(desk(), "INQUIRY", alloc=255)
    assert (whole.length, whole.resid) == (96, 255 - 96)
    assert whole.data[96:] == bytes(255 - 96)  # LIO copies its cleared buffer
    assert whole.data[58:66] == bytes.fromhex("00a0 0c60 0460 04c0")  # SAM-5, SAS-3, SPC-4, SBC-3
    own = ask(desk(vendor="ACME", product="Disk", revision="1"), "INQUIRY", alloc=36)
    assert own.data[8:36] == b"ACME    Disk            1   "


def page_of(target, page, alloc=255, **options):
    reply = ask(target, "INQUIRY", evpd=1, page=page, alloc=alloc, **options)
    assert reply.status == 0
    data = reply.data[: reply.length]
    assert data[0] == 0
    assert data[1] == page
    assert reply.resid == alloc - reply.length
    if reply.length < alloc:
        assert reply.length == 4 + int.from_bytes(data[2:4], "big")
    return data


def test_vpd_pages():
    target = desk(serial="abc-123", thin=True)
    assert page_of(target, 0x00) == bytes.fromhex("00 00 00 08 00 80 83 86 b0 b1 b2 b3")
    assert page_of(target, 0x80) == b"\0\x80\0\x08abc-123\0"
    assert page_of(target, 0x86)[4:8] == bytes.fromhex("00 07 00 00")
    assert len(page_of(target, 0x86)) == 64
    assert page_of(target, 0xB1)[4:6] == b"\0\x01"
    assert page_of(desk(rotational=True), 0xB1)[4:6] == b"\0\0"
    assert len(page_of(target, 0xB1)) == 64
    assert page_of(target, 0xB2) == bytes.fromhex("00 b2 00 04 00 e4 00 00")
    assert page_of(desk(), 0xB2) == bytes.fromhex("00 b2 00 04 00 00 00 00")
    assert page_of(desk(write_cache=True), 0x86)[6] == 1  # V_SUP


def test_vpd_page_of_identification():
    data = page_of(desk(serial="abc-123"), 0x83)
    found, at = [], 4
    while at < len(data):
        found.append((data[at] & 15, data[at + 1], data[at + 4 : at + 4 + data[at + 3]]))
        at += 4 + data[at + 3]
    kinds = [(code, second & 15, second >> 4 & 3) for code, second, _ in found]
    assert kinds == [(1, 3, 0), (2, 1, 0), (1, 4, 1), (1, 5, 1), (1, 6, 0), (3, 8, 1), (3, 8, 2)]
    naa, vendor = found[0][2], found[1][2]
    assert naa[:4] == bytes.fromhex("6001405a")  # 6, LIO's OUI, the serial's hex digits
    assert naa[4:6] == bytes.fromhex("bc12")
    assert len(naa) == 16
    assert vendor == b"LIO-ORG IBLOCK:abc-123\0"
    assert found[5][2].startswith(b"naa.5001405000000001,t,0x0000\0")
    assert page_of(desk(serial="abc-123"), 0x83, alloc=20) == data[:20]


@pytest.mark.parametrize(
    ("kernel", "thin", "length"),
    [
        ("6.1", False, 16), ("6.12", False, 16), ("7.2", False, 12),
        ("6.1", True, 60), ("6.12", True, 60), ("7.2", True, 40),
    ],
)  # fmt: skip
def test_vpd_page_of_block_limits(kernel, thin, length):
    data = page_of(desk(thin=thin, kernel=kernel), 0xB0)
    assert data[2:4] == length.to_bytes(2, "big")
    assert data[4:8] == bytes.fromhex("01 01 00 01")  # WSNZ, one block of COMPARE AND WRITE
    assert data[8:12] == (16384).to_bytes(4, "big")  # 2048 pages of data, in blocks
    if thin:
        assert data[20:28] == (65535 * 64).to_bytes(4, "big") + (1).to_bytes(4, "big")
        assert data[36:44] == (0xFFFF).to_bytes(8, "big")


@pytest.mark.parametrize(
    "fields",
    [{"page": 0x83}, {"evpd": 1, "page": 0x55}, {"evpd": 1, "page": 0xC0}],
)
def test_inquiry_of_no_page(fields):
    assert sense_of(ask(desk(), "INQUIRY", alloc=255, **fields)) == "5/24/00"


def test_every_lun_has_a_serial_of_its_own():
    target = Initiator([LunSpec(number=n, size=MIB) for n in range(3)])
    pages = {bytes(page_of(target, 0x80, at={"lun": n})) for n in range(3)}
    assert len(pages) == 3


# --------------------------------------------------------------------------------- MODE, and others


CACHING = "08 12 00 00 00 00 00 00 00 00 00 00 20 00 00 00 00 00 00 00"
CONTROL = "0a 0a 02 10 00 40 00 00 ff ff 00 1e"


def test_mode_sense():
    target = desk()
    reply = ask(target, "MODE SENSE(6)", page=8, alloc=255)
    assert transferred(reply) == bytes.fromhex("1f 00 00 08 001fffff 00000200" + CACHING)
    assert reply.resid == 255 - 32
    assert transferred(ask(target, "MODE SENSE(10)", page=0x0A, dbd=1, alloc=255)) == bytes.fromhex(
        "00 12 00 00 00 00 00 00" + CONTROL
    )
    every = transferred(ask(target, "MODE SENSE(6)", page=0x3F, dbd=1, alloc=255))
    assert [every[4], every[16], every[36], every[48]] == [0x01, 0x08, 0x0A, 0x1C]
    assert len(every) == every[0] + 1 == 4 + 12 + 20 + 12 + 12
    assert transferred(ask(target, "MODE SENSE(6)", page=8, pc=1, dbd=1, alloc=64)) == (
        bytes.fromhex("17 00 00 00 08 12") + bytes(18)
    )
    cut = ask(target, "MODE SENSE(6)", page=0x3F, alloc=4)
    assert transferred(cut) == bytes.fromhex("43 00 00 08")
    cached = transferred(ask(desk(write_cache=True), "MODE SENSE(6)", page=8, dbd=1, alloc=255))
    assert (cached[2], cached[6]) == (0x10, 0x04)  # DPOFUA, WCE
    for fields in ({"page": 0x02}, {"page": 0x08, "subpage": 1}, {"page": 0x3F, "subpage": 2}):
        assert sense_of(ask(target, "MODE SENSE(6)", **fields, alloc=255)) == "5/24/00"


def test_mode_sense_of_a_large_disk():
    target = desk(size=4 << 40)
    short = transferred(ask(target, "MODE SENSE(10)", page=8, alloc=255))
    assert short[8:16] == bytes.fromhex("ffffffff 00000200")
    long = transferred(ask(target, "MODE SENSE(10)", page=8, llbaa=1, alloc=255))
    assert long[4:24] == bytes.fromhex("01 00 0010 00000001ffffffff 00000000 00000200")
    control = transferred(ask(target, "MODE SENSE(6)", page=0x0A, dbd=1, alloc=255))
    assert control[6] == 0x06  # D_SENSE
    sense = ask(target, "READ(16)", lba=1 << 40, blocks=1)
    assert sense.response[12:20] == bytes.fromhex("72 05 21 00 00 00 00 00")


@pytest.mark.parametrize(
    ("data", "fields", "sense"),
    [
        ("00000000" + CACHING, {}, ""),
        ("00000000" + CONTROL, {}, ""),
        ("00000000 08 12 04" + CACHING[8:], {}, "5/26/00"),  # another value
        ("00000000" + CACHING, {"pf": 0}, "5/24/00"),
        ("00000000 02 0a" + "00" * 10, {}, "5/24/00"),  # no such page
        ("00000000 08", {}, "5/1A/00"),
        ("00000000 08 12 00", {}, "5/1A/00"),
        ("", {}, ""),
    ],
)
def test_mode_select_takes_what_is_there_already(data, fields, sense):
    raw = bytes.fromhex(data)
    fields = {"pf": 1, "list_length": len(raw)} | fields
    assert sense_of(ask(desk(), "MODE SELECT(6)", data_out=raw, **fields)) == sense
    if data:
        longer = bytes(4) + raw
        fields["list_length"] += 4
        assert sense_of(ask(desk(), "MODE SELECT(10)", data_out=longer, **fields)) == sense


def test_test_unit_ready_and_request_sense():
    target = desk()
    assert ask(target, "TEST UNIT READY").response == GOOD
    reply = ask(target, "REQUEST SENSE", alloc=96)
    assert transferred(reply)[:18] == bytes.fromhex("70 00 00 00 00 00 00 0a") + bytes(10)
    assert ask(target, "REQUEST SENSE", alloc=96, desc=1).sense.asc == 0x24


def test_request_sense_gives_a_unit_attention_as_data():
    target = desk()
    target.control(bytes.fromhex("00000000 05000000 0100400000000000 0000000000000000"))
    reply = ask(target, "REQUEST SENSE", alloc=18)
    assert reply.status == 0
    assert transferred(reply) == bytes.fromhex("70 00 06 00 00 00 00 0a 00 00 00 00 29 03").ljust(
        18, b"\0"
    )
    assert ask(target, "TEST UNIT READY").status == 0


@pytest.mark.parametrize(
    "name", ["READ(10)", "READ CAPACITY(10)", "MODE SENSE(6)", "TEST UNIT READY",
             "PERSISTENT RESERVE IN READ KEYS", "REPORT TARGET PORT GROUPS"]
)  # fmt: skip
def test_other_commands_report_a_unit_attention_once(name):
    target = desk()
    target.control(bytes.fromhex("00000000 05000000 0100400000000000 0000000000000000"))
    fields = {"blocks": 1} if name == "READ(10)" else {}
    if by_name(name).field("alloc"):
        fields["alloc"] = 64
    if name == "MODE SENSE(6)":
        fields["page"] = 8
    for quiet in ("INQUIRY", "REPORT LUNS"):
        assert ask(target, quiet, alloc=64).status == 0
    assert sense_of(ask(target, name, **fields)) == "6/29/03"
    assert sense_of(ask(target, name, **fields)) == ""


@pytest.mark.parametrize(
    ("fields", "sense"),
    [
        ({"immed": 1, "start": 1}, ""),
        ({"start": 1}, "5/24/00"),
        ({"immed": 1}, "5/24/00"),
        ({"immed": 1, "start": 1, "loej": 1}, "5/24/00"),
        ({"immed": 1, "start": 1, "power": 1}, "5/24/00"),
    ],
)
def test_start_stop_unit(fields, sense):
    assert sense_of(ask(desk(), "START STOP UNIT", **fields)) == sense


def test_seeks_do_nothing():
    for name in ("REZERO UNIT", "SEEK(6)", "SEEK(10)"):
        assert ask(desk(), name).response == GOOD


def test_capacity_and_flush_are_checked():
    target = desk()
    assert sense_of(ask(target, "READ CAPACITY(10)", lba=5)) == "5/24/00"
    assert sense_of(ask(target, "READ CAPACITY(10)", lba=5, pmi=1)) == ""
    assert sense_of(target.send(bytes.fromhex("9e 11").ljust(16, b"\0"))) == "5/24/00"
    flush = ask(target, "SYNCHRONIZE CACHE(10)", lba=8, blocks=16)
    assert (flush.status, flush.resid) == (0, 16 * 512)  # the range counts as data, in LIO
    assert ask(target, "SYNCHRONIZE CACHE(16)", immed=1).response == GOOD


def test_report_target_port_groups():
    reply = ask(desk(), "REPORT TARGET PORT GROUPS", alloc=64)
    assert transferred(reply) == bytes.fromhex("0000000c 00cf 0000 00000001 00000001")
    assert reply.resid == 48
    extended = ask(desk(), "REPORT TARGET PORT GROUPS", alloc=64, format=1)
    assert extended.data[:20] == bytes.fromhex("0000000c 10000000 00cf 0000 00000001 00000001")


def test_report_supported_operation_codes():
    target = desk(thin=True)
    every = transferred(ask(target, "REPORT SUPPORTED OPERATION CODES", alloc=4096))
    reported = {
        (every[at], int.from_bytes(every[at + 2 : at + 4], "big")) for at in range(4, len(every), 8)
    }
    assert reported == {(c.opcode, c.action or 0) for c in formats.COMMANDS}
    assert len(transferred(ask(desk(), "REPORT SUPPORTED OPERATION CODES", alloc=4096))) == (
        len(every) - 8  # no UNMAP
    )
    one = ask(target, "REPORT SUPPORTED OPERATION CODES", option=1, opcode=0x28, alloc=64)
    assert transferred(one) == bytes.fromhex("0003 000a 28 e0 ff ff ff ff 00 ff ff 00")
    cached = ask(desk(write_cache=True), "REPORT SUPPORTED OPERATION CODES",
                 option=1, opcode=0x28, alloc=64)  # fmt: skip
    assert transferred(cached)[5] == 0xF8
    none = ask(target, "REPORT SUPPORTED OPERATION CODES", option=1, opcode=0xFF, alloc=64)
    assert transferred(none) == bytes.fromhex("0001")
    old = ask(desk(kernel="6.1"), "REPORT SUPPORTED OPERATION CODES", alloc=64)
    assert sense_of(old) == "5/20/00"


def test_opcodes_that_nobody_knows():
    known = {command.opcode for command in formats.EVERY}
    target = desk()
    for opcode in range(256):
        cdb = bytes([opcode]).ljust(32, b"\0")
        reply = target.send(cdb)
        if opcode == 0x9E:
            assert sense_of(reply) == "5/24/00"  # a service action of it that is not known
        elif opcode not in known or opcode in (0x7F, 0xA3):
            assert sense_of(reply) == "5/20/00", hex(opcode)
        else:
            assert sense_of(reply) != "5/20/00" or opcode == 0x42, hex(opcode)


# ----------------------------------------------------------------------------- targets and LUNs


def test_a_lun_that_is_missing():
    target = desk()
    for name, fields in (("INQUIRY", {"alloc": 36}), ("TEST UNIT READY", {})):
        assert sense_of(ask(target, name, at={"lun": 5}, **fields)) == "5/25/00"


def test_the_virtual_lun_0_of_a_target_without_one():
    target = Initiator([LunSpec(number=2, size=MIB)])
    inquiry = ask(target, "INQUIRY", alloc=36)
    assert inquiry.data[:36] == bytes.fromhex("00 00 06 02 5b b8 00 02") + (
        b"LIO-ORG RAMDISK-MCP     4.0 "
    )
    assert transferred(ask(target, "READ CAPACITY(10)")) == bytes.fromhex("0000003f 00000200")
    assert transferred(ask(target, "REPORT LUNS", alloc=24))[:10] == bytes.fromhex(
        "00000008 00000000 0002"
    )
    assert ask(target, "TEST UNIT READY").status == 0
    read = ask(target, "READ(10)", lba=63, blocks=1)
    assert (read.status, read.data) == (0, bytes([PATTERN]) * 512)  # rd_mcp without pages
    assert sense_of(ask(target, "READ(10)", lba=63, blocks=2)) == "5/21/00"
    assert sense_of(ask(target, "WRITE(10)", data_out=bytes(512), blocks=1)) == "7/27/00"
    assert page_of(target, 0x00) == bytes.fromhex("00 00 00 00")  # no serial: no page is listed
    assert page_of(target, 0x80) == bytes.fromhex("00 80 00 00")


def test_report_luns_of_a_target_without_luns():
    empty = Initiator([], targets=(0,))
    reply = ask(empty, "REPORT LUNS", alloc=64)
    assert transferred(reply) == bytes.fromhex("00000008 00000000") + bytes(8)


def test_targets_have_luns_of_their_own():
    target = Initiator([
        LunSpec(target=1, number=0, size=MIB), LunSpec(target=7, number=0, size=2 * MIB),
        LunSpec(target=7, number=1, size=3 * MIB),
    ])  # fmt: skip
    for number, lun, size in ((1, 0, 1), (7, 0, 2), (7, 1, 3)):
        place = {"target": number, "lun": lun}
        last = ask(target, "READ CAPACITY(10)", at=place).data[:4]
        assert int.from_bytes(last, "big") == size * 2048 - 1
        data = stamped(10 * number + lun)
        assert ask(target, "WRITE(10)", data_out=data, blocks=1, at=place).status == 0
    for number, lun in ((1, 0), (7, 0), (7, 1)):
        read = ask(target, "READ(10)", blocks=1, at={"target": number, "lun": lun})
        assert stamps(read.data) == [10 * number + lun]
    assert ask(target, "TEST UNIT READY", at={"target": 0}).outcome == "bad_target"


def test_an_aca_task_attribute_is_refused():
    target = desk()
    found = [sense_of(target.send(bytes(6), attribute=number)) for number in range(4)]
    assert found == ["", "", "", "5/24/00"]


# -------------------------------------------------------------------------------- by hypothesis


@given(
    ops=st.lists(
        st.tuples(
            st.sampled_from(["WRITE(10)", "WRITE(16)", "WRITE SAME(10)", "UNMAP", "READ(10)"]),
            st.integers(0, 40),
            st.integers(1, 12),
        ),
        max_size=12,
    ),
    block_size=st.sampled_from([512, 1024, 4096]),
)
def test_the_medium_is_what_a_model_of_it_says(ops, block_size):
    target = desk(size=64 * block_size, block_size=block_size, thin=True)
    per_block = block_size // 512
    held = stamps(target.held(target.plan.luns[0], 0, 64))
    serial = 1000
    for name, lba, blocks in ops:
        first, count = lba * per_block, blocks * per_block
        if name == "UNMAP":
            data = unmap_list((lba, blocks))
            assert ask(target, name, data_out=data, list_length=len(data)).status == 0
            held[first : first + count] = [0] * count
        elif name == "READ(10)":
            assert (
                stamps(ask(target, name, lba=lba, blocks=blocks).data)
                == (held[first : first + count])
            )
        else:
            sectors = per_block if name == "WRITE SAME(10)" else count
            data = stamped(serial, sectors)
            assert ask(target, name, data_out=data, lba=lba, blocks=blocks).status == 0
            written = [serial + i % sectors for i in range(count)]
            held[first : first + count] = written
            serial += sectors
    assert stamps(target.held(target.plan.luns[0], 0, 64)) == held
