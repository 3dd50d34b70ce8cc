"""RESERVE and RELEASE, and persistent reservations: who may do what, and who hears of it.

The table of persistent reservations is SPC-4's table "allowed commands", with LIO's choices
(core_scsi3_pr_seq_non_holder) where they differ.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sim.formats.cdb import build, by_name
from sim.initiator import Initiator
from sim.layout import TMF_LOGICAL_UNIT_RESET
from sim.lio.spec import LunSpec
from sim.scsi import tmf_request

A, B, C, ONLOOKER = range(4)
KEYS = {A: 0xAAAA, B: 0xBBBB, C: 0xCCCC}
CONFLICT = "18h"
PR_OUT = "PERSISTENT RESERVE OUT "
PR_IN = "PERSISTENT RESERVE IN "
TYPES = (1, 3, 5, 6, 7, 8)
WRITE_EXCLUSIVE = (1, 5, 7)


def desk():
    return Initiator([LunSpec(size=1 << 20)], nexuses=4)


def ask(target, nexus, name, data_in=0, data_out=b"", **fields):
    """What a command ends with: '' GOOD, key/asc/ascq, or a status such as 18h."""
    reply = target.send(
        build(by_name(name), fields), data_in=data_in, data_out=data_out, nexus=nexus
    )
    if reply.status == 0:
        return ""
    return str(reply.sense)[:7] if reply.sense else f"{reply.status:02x}h"


def out(target, nexus, action, key=0, sa_key=0, flags=0, **fields):
    """A PERSISTENT RESERVE OUT."""
    listed = key.to_bytes(8, "big") + sa_key.to_bytes(8, "big") + bytes([0, 0, 0, 0, flags])
    listed += bytes(3)
    return ask(target, nexus, PR_OUT + action, data_out=listed, list_length=24, **fields)


def read(target, action, alloc=255):
    """The data of a PERSISTENT RESERVE IN, as somebody sees it who has no part in it."""
    ask(target, ONLOOKER, "REQUEST SENSE", data_in=18, alloc=18)  # takes what waits for it
    cdb = build(by_name(PR_IN + action), {"alloc": alloc})
    reply = target.send(cdb, data_in=alloc, nexus=ONLOOKER)
    assert reply.status == 0
    return reply.data[: reply.length]


def keys(target):
    """(generation, keys)."""
    data = read(target, "READ KEYS")
    assert int.from_bytes(data[4:8], "big") == len(data) - 8
    found = [int.from_bytes(data[i : i + 8], "big") for i in range(8, len(data), 8)]
    return int.from_bytes(data[:4], "big"), found


def reservation(target):
    """(key, type) of the reservation, None if there is none."""
    data = read(target, "READ RESERVATION")
    if len(data) == 8:
        assert data[4:8] == bytes(4)
        return None
    assert data[4:8] == b"\0\0\0\x10"
    return int.from_bytes(data[8:16], "big"), data[21]


def registered(*nexuses):
    target = desk()
    for nexus in nexuses:
        assert out(target, nexus, "REGISTER", sa_key=KEYS[nexus]) == ""
    return target


def held(kind, *others):
    """A holds a reservation of this type; others are registered."""
    target = registered(A, *others)
    assert out(target, A, "RESERVE", key=KEYS[A], type=kind) == ""
    return target


# --------------------------------------------------------------------------- RESERVE and RELEASE


@pytest.mark.parametrize(
    ("reserve", "release"), [("RESERVE(6)", "RELEASE(6)"), ("RESERVE(10)", "RELEASE(10)")]
)
def test_a_reservation_shuts_others_out(reserve, release):
    target = desk()
    assert ask(target, A, reserve) == ""
    assert ask(target, A, reserve) == ""
    assert ask(target, A, "READ(10)", data_in=512, blocks=1) == ""
    for name in ("READ(10)", "TEST UNIT READY", "REQUEST SENSE", "REPORT LUNS", reserve,
                 "MODE SENSE(6)", PR_IN + "READ KEYS"):  # fmt: skip
        assert ask(target, B, name) == CONFLICT, name
    assert ask(target, B, "INQUIRY", data_in=36, alloc=36) == ""
    assert ask(target, B, release) == ""  # does nothing
    assert ask(target, B, "TEST UNIT READY") == CONFLICT
    assert ask(target, A, release) == ""
    assert ask(target, B, reserve) == ""
    assert ask(target, A, "TEST UNIT READY") == CONFLICT


def test_a_lun_reset_ends_a_reservation_but_no_persistent_one():
    target = desk()
    ask(target, A, "RESERVE(6)")
    assert target.control(tmf_request(TMF_LOGICAL_UNIT_RESET, 0, 0)) == b"\x0a"
    assert ask(target, B, "TEST UNIT READY") == "6/29/03"
    assert ask(target, B, "TEST UNIT READY") == ""
    lasting = held(3, B)
    assert lasting.control(tmf_request(TMF_LOGICAL_UNIT_RESET, 0, 0)) == b"\x0a"
    assert ask(lasting, C, "TEST UNIT READY") == "6/29/03"
    assert ask(lasting, C, "READ(10)", data_in=512, blocks=1) == CONFLICT
    assert ask(lasting, A, "TEST UNIT READY") == "6/29/03"
    assert keys(lasting)[1] == [KEYS[A], KEYS[B]]


def test_the_two_kinds_of_reservation_shut_each_other_out():
    target = registered(A)
    assert ask(target, B, "RESERVE(6)") == CONFLICT
    assert ask(target, B, "RELEASE(6)") == CONFLICT
    both = held(1, B)
    assert ask(both, A, "RESERVE(6)") == ""  # of the holder, and does nothing
    assert ask(both, B, "RESERVE(6)") == CONFLICT
    legacy = desk()
    assert ask(legacy, A, "RESERVE(6)") == ""
    assert out(legacy, A, "REGISTER", sa_key=1) == CONFLICT
    assert ask(legacy, A, PR_IN + "READ KEYS", data_in=8, alloc=8) == CONFLICT


# ------------------------------------------------------------------------------------- who may what


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("who", ["holder", "registrant", "stranger"])
def test_who_may_read_and_write(kind, who):
    target = held(kind, B)
    nexus = {"holder": A, "registrant": B, "stranger": C}[who]
    full = who == "holder" or (who == "registrant" and kind >= 5)
    may_read = full or kind in WRITE_EXCLUSIVE
    for name, write in (("READ(10)", False), ("READ(16)", False), ("WRITE(10)", True),
                        ("WRITE(16)", True), ("WRITE SAME(10)", True)):  # fmt: skip
        data = {"data_out": bytes(512)} if write else {"data_in": 512}
        allowed = full or (not write and may_read)
        assert ask(target, nexus, name, **data, blocks=1) == ("" if allowed else CONFLICT), name
    for name in ("INQUIRY", "TEST UNIT READY", "REPORT LUNS", "REQUEST SENSE"):
        fields = {} if name == "TEST UNIT READY" else {"alloc": 64, "data_in": 64}
        assert ask(target, nexus, name, **fields) == "", name
    assert ask(target, nexus, PR_IN + "READ KEYS", data_in=64, alloc=64) == ""
    group = {"alloc": 64, "data_in": 64}
    assert ask(target, nexus, "REPORT TARGET PORT GROUPS", **group) == ""
    mode = ask(target, nexus, "MODE SENSE(6)", page=8, **group)
    assert mode == ("" if who != "stranger" or kind in WRITE_EXCLUSIVE else CONFLICT)


@pytest.mark.parametrize("kind", TYPES)
def test_who_may_reserve_while_it_is_held(kind):
    target = held(kind, B)
    assert out(target, C, "REGISTER", sa_key=KEYS[C]) == ""
    assert out(target, A, "RESERVE", key=KEYS[A], type=kind) == ""  # the same again
    other = 1 if kind != 1 else 3
    assert out(target, A, "RESERVE", key=KEYS[A], type=other) == CONFLICT
    # Of a reservation of all registrants everybody is a holder.
    assert out(target, B, "RESERVE", key=KEYS[B], type=kind) == ("" if kind >= 7 else CONFLICT)
    assert out(target, B, "RELEASE", key=KEYS[B], type=kind) == ""
    assert reservation(target) == (None if kind >= 7 else ((KEYS[A], kind)))


# --------------------------------------------------------------------------------- registration


def test_registering():
    target = desk()
    assert keys(target) == (0, [])
    assert out(target, A, "REGISTER", key=5, sa_key=6) == CONFLICT  # not registered: no key
    assert out(target, A, "REGISTER", sa_key=0) == ""
    assert keys(target) == (0, [])
    assert out(target, A, "REGISTER", sa_key=0x11) == ""
    assert out(target, B, "REGISTER", sa_key=0x22) == ""
    assert keys(target) == (2, [0x11, 0x22])
    assert out(target, A, "REGISTER", key=9, sa_key=0x33) == CONFLICT
    assert out(target, A, "REGISTER", key=0x11, sa_key=0x33) == ""
    assert keys(target) == (3, [0x33, 0x22])
    assert out(target, A, "REGISTER AND IGNORE EXISTING KEY", sa_key=0x44) == ""
    assert keys(target) == (4, [0x44, 0x22])
    assert out(target, A, "REGISTER", key=0x44) == ""
    assert keys(target) == (4, [0x22])  # LIO does not count that
    assert read(target, "READ KEYS", alloc=12) == bytes.fromhex("00000004 00000008")


def test_registering_others_by_their_name():
    target = desk()
    names = target.plan.nexuses
    identity = bytes([6, 0, 0, 0]) + bytes.fromhex(names[C].partition(".")[2]) + bytes(12)
    head = bytes(8) + (0x77).to_bytes(8, "big") + bytes([0, 0, 0, 0, 8, 0, 0, 0])
    listed = head + len(identity).to_bytes(4, "big") + identity
    for data, answer in ((listed[:-1], "5/26/00"), (listed, "")):
        sent = ask(target, A, PR_OUT + "REGISTER", data_out=data, list_length=len(data))
        assert sent == answer
    assert keys(target) == (2, [0x77, 0x77])
    assert out(target, C, "RESERVE", key=0x77, type=1) == ""
    # Only REGISTER takes a list.
    refused = ask(target, C, PR_OUT + "RESERVE", data_out=listed, list_length=len(listed), type=1)
    assert refused == "5/26/00"


@pytest.mark.parametrize(
    ("data", "fields", "sense"),
    [
        (24, {}, ""),
        (0, {}, "5/1A/00"),
        (20, {}, "5/1A/00"),
        (28, {}, "5/1A/00"),  # longer, without SPEC_I_PT
    ],
)
def test_the_length_of_the_list(data, fields, sense):
    found = ask(desk(), A, PR_OUT + "REGISTER", data_out=bytes(data), list_length=data, **fields)
    assert found == sense


def test_service_actions_and_types_that_are_none():
    target = registered(A)
    bad = build(by_name(PR_OUT + "REGISTER"), {"list_length": 24})[:1] + bytes([9]) + bytes(8)
    bad = bad[:8] + b"\x18" + bad[9:]
    assert str(target.send(bad, data_out=bytes(24)).sense).startswith("5/24/00")
    for kind in (0, 2, 4, 9, 15):
        assert out(target, A, "RESERVE", key=KEYS[A], type=kind) == "5/24/00"
    assert out(target, A, "RESERVE", key=KEYS[A], type=1, scope=1) == "5/26/00"
    assert out(target, A, "RESERVE", key=1, type=1) == CONFLICT
    assert out(target, B, "RESERVE", key=KEYS[B], type=1) == "2/08/00"  # not registered
    none = build(by_name(PR_IN + "READ KEYS"), {"alloc": 64})[:1] + bytes([4]) + bytes(5)
    assert str(target.send(none + b"\0\x40\0", data_in=64).sense).startswith("5/24/00")


# ------------------------------------------------------------------------------ release, preempt


def test_releasing():
    target = held(5, B)
    assert out(target, A, "RELEASE", key=KEYS[A], type=6) == CONFLICT
    assert out(target, A, "RELEASE", key=1, type=5) == CONFLICT
    assert out(target, A, "RELEASE", key=KEYS[A], type=5) == ""
    assert reservation(target) is None
    assert ask(target, B, "TEST UNIT READY") == "6/2A/04"  # RESERVATIONS RELEASED
    assert ask(target, A, "TEST UNIT READY") == ""
    quiet = held(1, B)
    assert out(quiet, A, "RELEASE", key=KEYS[A], type=1) == ""
    assert ask(quiet, B, "TEST UNIT READY") == ""


@pytest.mark.parametrize(("kind", "attention"), [(1, ""), (3, ""), (5, "6/2A/04"), (6, "6/2A/04")])
def test_a_holder_that_unregisters_releases(kind, attention):
    target = held(kind, B)
    assert out(target, A, "REGISTER", key=KEYS[A]) == ""
    assert reservation(target) is None
    assert ask(target, B, "TEST UNIT READY") == attention


def test_a_reservation_of_all_registrants_lives_as_long_as_one_of_them():
    target = held(7, B)
    assert out(target, A, "REGISTER", key=KEYS[A]) == ""
    assert reservation(target) == (0, 7)
    assert ask(target, C, "WRITE(10)", data_out=bytes(512), blocks=1) == CONFLICT
    assert out(target, B, "REGISTER", key=KEYS[B]) == ""
    assert reservation(target) is None


def test_clearing():
    target = held(3, B)
    assert out(target, C, "CLEAR", key=0) == CONFLICT  # by the reservation: not registered
    assert out(target, B, "CLEAR", key=KEYS[B]) == ""
    assert (keys(target), reservation(target)) == ((3, []), None)
    assert ask(target, A, "TEST UNIT READY") == "6/2A/03"  # RESERVATIONS PREEMPTED
    assert ask(target, B, "TEST UNIT READY") == ""


@pytest.mark.parametrize("action", ["PREEMPT", "PREEMPT AND ABORT"])
def test_preempting(action):
    target = held(3, B, C)
    assert out(target, B, action, key=KEYS[B], sa_key=KEYS[A], type=1) == ""
    assert reservation(target) == (KEYS[B], 1)
    assert keys(target)[1] == [KEYS[B], KEYS[C]]
    assert ask(target, A, "TEST UNIT READY") == "6/2A/05"  # REGISTRATIONS PREEMPTED
    assert ask(target, C, "TEST UNIT READY") == "6/2A/04"  # the type has changed
    assert ask(target, A, "WRITE(10)", data_out=bytes(512), blocks=1) == CONFLICT
    assert out(target, B, action, key=KEYS[B], sa_key=KEYS[C], type=1) == ""  # no holder's key
    assert (keys(target)[1], reservation(target)) == ([KEYS[B]], (KEYS[B], 1))
    assert out(target, B, action, key=KEYS[B], sa_key=0x123, type=1) == CONFLICT
    assert out(target, B, action, key=KEYS[B], sa_key=0, type=1) == "5/26/00"
    assert out(target, A, action, key=KEYS[A], sa_key=KEYS[B], type=1) == CONFLICT


def test_preempting_all_registrants():
    target = held(8, B, C)
    assert out(target, B, "PREEMPT", key=KEYS[B], sa_key=0, type=3) == ""
    assert (keys(target)[1], reservation(target)) == ([KEYS[B]], (KEYS[B], 3))
    for nexus in (A, C):
        assert ask(target, nexus, "TEST UNIT READY") == "6/2A/05"


def move(target, nexus, to, unreg=0, port=1):
    identity = bytes([6, 0, 0, 0]) + bytes.fromhex(target.plan.nexuses[to].partition(".")[2])
    identity = identity.ljust(24, b"\0")
    listed = KEYS[nexus].to_bytes(8, "big") + KEYS[to].to_bytes(8, "big") + bytes([0, unreg << 1])
    listed += port.to_bytes(2, "big") + len(identity).to_bytes(4, "big") + identity
    cdb = {"list_length": len(listed)}
    return ask(target, nexus, PR_OUT + "REGISTER AND MOVE", data_out=listed, **cdb)


def test_moving_a_reservation():
    target = held(3)
    assert move(target, A, C, port=9) == "5/26/00"
    assert move(target, A, A) == "5/26/00"
    assert move(target, A, C, unreg=1) == ""
    assert (keys(target)[1], reservation(target)) == ([KEYS[C]], (KEYS[C], 3))
    assert ask(target, A, "READ(10)", data_in=512, blocks=1) == CONFLICT
    assert ask(target, C, "READ(10)", data_in=512, blocks=1) == ""
    assert move(registered(A), A, C) == "5/24/00"  # nothing to move


# ------------------------------------------------------------------------------- what it tells


def test_reports():
    target = held(5, B)
    assert read(target, "READ RESERVATION") == bytes.fromhex(
        "00000002 00000010 000000000000aaaa 00000000 00 05 0000"
    )
    assert read(target, "REPORT CAPABILITIES") == bytes.fromhex("0008 1d 90 ea01 0000")
    status = read(target, "READ FULL STATUS")
    assert status[:8] == bytes.fromhex("00000002 00000060")
    first, second = status[8:56], status[56:104]
    assert first[:24] == bytes.fromhex("000000000000aaaa 00000000 01 05 00000000 0001 00000018")
    assert second[:24] == bytes.fromhex("000000000000bbbb 00000000 00 00 00000000 0001 00000018")
    assert first[24:36] == bytes.fromhex("06000000 5001405000001000")
    assert second[24:36] == bytes.fromhex("06000000 5001405000001001")
    assert out(target, A, "REGISTER", key=KEYS[A], sa_key=KEYS[A], flags=1) == ""
    assert read(target, "REPORT CAPABILITIES")[3] == 0x91  # PTPL_A, since APTPL was asked for
    for alloc, action in ((7, "READ KEYS"), (5, "REPORT CAPABILITIES")):
        cdb = build(by_name(PR_IN + action), {"alloc": alloc})
        assert str(target.send(cdb, data_in=alloc).sense).startswith("5/24/00")


def test_reservations_are_of_one_lun():
    target = Initiator([LunSpec(number=n, size=1 << 20) for n in range(2)])
    cdb = build(by_name("RESERVE(6)"), {})
    assert target.send(cdb, lun=0, nexus=A).status == 0
    assert target.send(bytes(6), lun=0, nexus=B).status == 0x18
    assert target.send(bytes(6), lun=1, nexus=B).status == 0


# --------------------------------------------------------------------------------- by hypothesis


class Registrations(RuleBasedStateMachine):
    """Registrations and reservations against a model that is a dictionary and a pair."""

    nexuses = st.sampled_from([A, B, C])

    def __init__(self):
        super().__init__()
        self.target = desk()
        self.keys = {}
        self.holder = None  # (nexus, type)
        self.told = {A: False, B: False, C: False}  # a unit attention waits

    def hears(self, nexus):
        """Take the unit attention that waits, so that the next command is carried out."""
        if self.told[nexus]:
            assert ask(self.target, nexus, "TEST UNIT READY").startswith("6/2A")
            self.told[nexus] = False

    def holds(self, nexus):
        return self.holder and (self.holder[0] == nexus or self.holder[1] >= 7)

    @rule(nexus=nexuses, key=st.integers(1, 3))
    def register(self, nexus, key):
        self.hears(nexus)
        assert out(self.target, nexus, "REGISTER AND IGNORE EXISTING KEY", sa_key=key) == ""
        self.keys = self.keys | {nexus: key}

    @rule(nexus=nexuses)
    def unregister(self, nexus):
        self.hears(nexus)
        was = self.keys.pop(nexus, None)
        assert out(self.target, nexus, "REGISTER AND IGNORE EXISTING KEY") == ""
        if was is None or not self.holder or self.holder[0] != nexus:
            return
        kind = self.holder[1]
        self.holder = (next(iter(self.keys)), kind) if kind >= 7 and self.keys else None
        if kind in (5, 6):
            self.told |= dict.fromkeys(self.keys, True)

    @rule(nexus=nexuses, kind=st.sampled_from(TYPES))
    def reserve(self, nexus, kind):
        self.hears(nexus)
        answer = out(self.target, nexus, "RESERVE", key=self.keys.get(nexus, 0), type=kind)
        if self.holder is None:
            assert answer == ("" if nexus in self.keys else "2/08/00")
            if nexus in self.keys:
                self.holder = (nexus, kind)
        else:
            same = nexus in self.keys and self.holds(nexus) and self.holder[1] == kind
            assert answer == ("" if same else CONFLICT)

    @rule(nexus=nexuses)
    def release(self, nexus):
        self.hears(nexus)
        kind = self.holder[1] if self.holder else 1
        answer = out(self.target, nexus, "RELEASE", key=self.keys.get(nexus, 0), type=kind)
        if nexus not in self.keys:
            assert answer == (CONFLICT if self.holder else "2/08/00")
            return
        assert answer == ""
        if self.holds(nexus):
            self.holder = None
            if kind >= 5:
                self.told |= {other: True for other in self.keys if other != nexus}

    @rule(nexus=nexuses)
    def clear(self, nexus):
        self.hears(nexus)
        answer = out(self.target, nexus, "CLEAR", key=self.keys.get(nexus, 0))
        if nexus not in self.keys:
            assert answer == (CONFLICT if self.holder else "2/08/00")
            return
        assert answer == ""
        self.told |= {other: True for other in self.keys if other != nexus}
        self.keys, self.holder = {}, None

    @rule(nexus=nexuses, write=st.booleans())
    def access(self, nexus, write):
        self.hears(nexus)
        data = {"data_out": bytes(512)} if write else {"data_in": 512}
        answer = ask(self.target, nexus, "WRITE(10)" if write else "READ(10)", **data, blocks=1)
        allowed = True
        if self.holder and self.holder[0] != nexus:
            kind = self.holder[1]
            if kind >= 5 and nexus in self.keys:
                allowed = True
            else:
                allowed = kind in WRITE_EXCLUSIVE and not write
        assert answer == ("" if allowed else CONFLICT)

    @invariant()
    def reported(self):
        data = read(self.target, "READ KEYS")
        listed = [int.from_bytes(data[i : i + 8], "big") for i in range(8, len(data), 8)]
        assert listed == list(self.keys.values())
        data = read(self.target, "READ RESERVATION")
        if self.holder is None:
            assert len(data) == 8
        else:
            nexus, kind = self.holder
            key = 0 if kind >= 7 else self.keys[nexus]
            assert (int.from_bytes(data[8:16], "big"), data[21]) == (key, kind)


TestRegistrations = Registrations.TestCase
TestRegistrations.settings = settings(stateful_step_count=30)
