"""python -m sim scsi: every command of the subset there and back, raw CDBs, sequences, errors."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ConfigError
from sim.formats import cdb as formats
from sim.formats.scsi_data import describe
from sim.studies.scsi_commands import main, run


def commands(line):
    """What --json says of the commands of a line."""
    return run(shlex.split(line))[0]["commands"]


def the(line):
    """What it says of the only one."""
    (found,) = commands(line)
    return found


def lines(line):
    """The text for people."""
    return main(shlex.split(line))[0].splitlines()


def row(found, part, offset):
    return next(row for row in found[f"{part}_fields"] if row["offset"] == offset)


@pytest.mark.parametrize("command", formats.EVERY, ids=lambda command: command.name)
def test_every_command_there_and_back(command):
    more = " --thin" if command.name == "UNMAP" else ""
    more += " --to B" if "MOVE" in command.name else ""
    more += " --type 1" if command.action in (1, 4, 5) and command.opcode == 0x5F else ""
    found = the(f'"{command.name}"{more}')
    assert found["command"] == command.name
    assert found["outcome"] == "answered"
    assert len(found["request"]) == 102
    assert len(found["response"]) == 216
    refused = {
        "PERSISTENT RESERVE OUT RESERVE": "2/08/00", "PERSISTENT RESERVE OUT RELEASE": "2/08/00",
        "PERSISTENT RESERVE OUT CLEAR": "2/08/00", "PERSISTENT RESERVE OUT REGISTER AND MOVE":
        "2/08/00", "PERSISTENT RESERVE OUT PREEMPT": "18h",
        "PERSISTENT RESERVE OUT PREEMPT AND ABORT": "18h",
    }  # fmt: skip
    answer = "" if found["status"] == "GOOD" else "18h"
    if found["sense"]:
        answer = found["sense"]["text"][:7]
    assert answer == refused.get(command.name, "")
    for part in ("request", "response", "data_out", "data_in"):
        whole = bytes.fromhex(found[part])
        for piece in found[f"{part}_fields"]:
            raw = bytes.fromhex(piece["bytes"])
            assert whole[piece["offset"] : piece["offset"] + len(raw)] == raw
        if part in ("request", "response"):
            assert b"".join(bytes.fromhex(p["bytes"]) for p in found[f"{part}_fields"]) == whole
    if command.data == "in":
        assert found["data_in_fields"]


def test_the_must_show():
    text = lines("INQUIRY --vpd 0x83")
    assert text[0] == "LUN 0 of target 0: 8589934592 bytes in blocks of 512; host Linux 6.12"
    assert text[2] == "INQUIRY from nexus A"
    cdb = next(line for line in text if " cdb " in line)
    assert cdb.split() == (
        ["19", "12", "01", "83", "00", "ff", "00", "cdb", "INQUIRY", "evpd=0x1", "page=0x83",
         "alloc=0xff"]
    )  # fmt: skip
    assert any("NAA of the logical unit 6001405" in line for line in text)
    assert any("resid             87" in line for line in text)


def test_sense_in_words():
    found = the("READ10 --lba 0x1fffff --blocks 2 --size 1g")
    assert found["sense"] == {
        "key": 5, "asc": 0x21, "ascq": 0, "information": None, "format": "fixed",
        "text": "5/21/00 ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE",
    }  # fmt: skip
    assert found["status"] == "CHECK CONDITION"
    assert the("READ16 --lba 0x200000000 --blocks 1 --size 4t")["sense"]["format"] == "descriptor"
    miscompare = the("COMPARE AND WRITE --lba 4 --compare 00")
    assert miscompare["sense"]["text"].startswith("E/1D/00")
    assert the("COMPARE AND WRITE --lba 4")["status"] == "GOOD"


@pytest.mark.parametrize("text", ["12 01 00 00 ff 00", "0x12 01 00 00 ff 00", "12010000ff00"])
def test_a_raw_cdb(text):
    found = the(text)
    assert found["command"] == "INQUIRY"
    assert found["data_in"] == "0000000800808386b0b1b2b3"
    assert the("ff 00")["sense"]["text"].startswith("5/20/00")
    assert row(the("28 00 00 00 00 05 00 00 02 00"), "request", 19)["text"] == (
        "READ(10)  lba=0x5  blocks=0x2"
    )


def test_a_sequence_from_two_initiators():
    register, reserve, write, own = commands(
        "PR OUT REGISTER --sa-key 0xabc then PR OUT RESERVE --key 0xabc --type 1 "
        "then WRITE10 --nexus B then WRITE10 --nexus A"
    )
    assert [found["status"] for found in (register, reserve, write, own)] == [
        "GOOD", "GOOD", "RESERVATION CONFLICT", "GOOD",
    ]  # fmt: skip
    assert write["nexus"] == "B"
    reset, first, second = commands("LUN RESET then TUR then TUR")
    assert row(reset, "response", 0)["text"] == "FUNCTION_SUCCEEDED"
    assert first["sense"]["text"].startswith("6/29/03")
    assert second["status"] == "GOOD"


def test_what_is_written_is_read_by_the_next_command():
    _, read = commands("WRITE10 --lba 7 --fill 0x3c then READ10 --lba 7")
    assert read["data_in"].startswith("3c" * 8)
    _, _, back = commands("WRITE10 --lba 7 --thin then UNMAP --lba 7 then READ10 --lba 7")
    assert back["data_in"].startswith("00" * 8)


def test_luns():
    found = the("REPORT LUNS --luns 0,3,300")
    assert [r["fields"]["lun"] for r in found["data_in_fields"] if "lun" in r["fields"]] == [
        300, 3, 0,
    ]  # fmt: skip
    assert the("TUR --luns 1,2 --lun 3")["sense"]["text"].startswith("5/25/00")
    assert the("INQUIRY --no-luns")["data_in"][16:].startswith(b"LIO-ORG RAMDISK".hex())
    assert row(the("TUR --target 9"), "response", 11)["text"] == "BAD_TARGET"
    assert the("TUR --target-number 9")["status"] == "GOOD"


def test_layouts():
    whole, cut = the("READ10 --lba 3"), the("READ10 --lba 3 --readable 20,31 --writable 8,100,512")
    assert cut["readable"] == [20, 31]
    assert (cut["response"], cut["data_in"]) == (whole["response"], whole["data_in"])
    assert the("TUR --writable 107")["outcome"] == "dropped"
    assert "no response: the request is dropped, its ring slot leaks" in lines("TUR --writable 107")
    assert the("TUR --readable 50")["outcome"] == "bad_target"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "COMMAND"),
        ("FROB", "no command 'FROB'"),
        ("TUR --lba 5", "TEST UNIT READY has no field lba"),
        ("TUR --bogus", "--bogus"),
        ("READ10 --lba x", "'x' is no number"),
        ("READ10 --lba 0x100000000", "does not fit 32 bits"),
        ("READ10 --lba -1", "does not fit"),
        ("READ10 --blocks 65535", "more than 1048576"),
        ("READ10 --data-in 2m", "more than 1048576"),
        ("READ10 --fill 300 then WRITE10 --fill 300", "--fill 300 is no byte"),
        ("12 0", "not 1 to 32 bytes"),
        ("12 00 00 00 24 00 --alloc 9", "takes no --alloc"),
        ("PR OUT", "needs its service action"),
        ("PR OUT --sa 9", "needs its service action"),
        ("PR OUT REGISTER AND MOVE", "needs --to"),
        ("READ10 --key 5", "takes no --key"),
        ("PR OUT REGISTER --sa-key 0x10000000000000000", "64 bits"),
        ("UNMAP --blocks 0x100000000", "32 bits"),
        ("TUR --lun 16384", "--lun is a number from 0 to 16383"),
        ("TUR --tag -1", "--tag"),
        ("TUR --nexus AB", "'AB' is no initiator"),
        ("TUR then TUR --size 4k", "stands behind"),
        ("TUR --size 1000", "no multiple"),
        ("TUR --block-size 520", "520"),
        ("TUR --luns 1,1", "twice"),
        ("TUR --vendor toolongbyfar", "vendor"),
        ("TUR --data-out xyz", "no hexadecimal"),
        ("TUR --size 99999t", "does not fit"),
    ],
)
def test_errors_are_one_line(line, message):
    with pytest.raises(ConfigError) as error:
        run(shlex.split(line))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def shell(*words):
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"}
    return subprocess.run(
        [sys.executable, "-m", "sim", "scsi", *words],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip


def test_on_the_command_line():
    found = shell("INQUIRY", "--vpd", "0x83", "--json")
    assert (found.returncode, found.stderr) == (0, "")
    data = json.loads(found.stdout)
    assert data["commands"][0]["cdb"] == "12018300ff00"
    wrong = shell("INQUIRY", "--bogus")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: scsi: unrecognized arguments: --bogus")
    assert wrong.stderr.count("\n") == 1
    assert "usage: vhost-scsi-sim scsi COMMAND" in shell("--help").stdout


@given(
    command=st.sampled_from([None, *formats.EVERY]),
    cdb=st.binary(min_size=16, max_size=32),
    data=st.binary(max_size=200),
)
def test_any_data_are_described(command, cdb, data):
    found = describe(command, cdb, data)
    for piece in found:
        assert data[piece.offset : piece.offset + len(piece.raw)] == piece.raw
        assert "\n" not in str(piece)
    if command is None or command.length not in ("blocks", "one block", "two halves"):
        assert b"".join(piece.raw for piece in found) == data


DOCUMENT = Path(__file__).resolve().parent.parent / "docs/reference/scsi.md"
EXAMPLES = re.findall(r"^\| [^|]+ \| `([^`]+)` \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE)


def test_there_are_examples():
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize(("line", "answer"), EXAMPLES)
def test_what_the_document_says(line, answer):
    found = commands(line)[-1]
    if found["outcome"] == "dropped":
        assert answer == "dropped"
        return
    said = found["status"]
    if found["outcome"] == "bad_target":
        said = "BAD_TARGET"
    elif found["sense"]:
        said = found["sense"]["text"][:7]
    elif said == "RESERVATION CONFLICT":
        said = "18h"
    said += f", resid {found['resid']}" if found["resid"] else ""
    assert said == answer
