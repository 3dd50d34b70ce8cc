"""Sense, status and response codes in words, for people."""

from dataclasses import dataclass

KEYS = (
    'NO SENSE', 'RECOVERED ERROR', 'NOT READY', 'MEDIUM ERROR', 'HARDWARE ERROR',
    'ILLEGAL REQUEST', 'UNIT ATTENTION', 'DATA PROTECT', 'BLANK CHECK', 'VENDOR SPECIFIC',
    'COPY ABORTED', 'ABORTED COMMAND', 'RESERVED', 'VOLUME OVERFLOW', 'MISCOMPARE', 'COMPLETED',
)  # fmt: skip

CODES = {
    0x0000: 'NO ADDITIONAL SENSE INFORMATION',
    0x040A: 'LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION',
    0x040B: 'LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE',
    0x040C: 'LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE',
    0x0800: 'LOGICAL UNIT COMMUNICATION FAILURE',
    0x0C00: 'WRITE ERROR',
    0x0E03: 'INVALID FIELD IN COMMAND INFORMATION UNIT',
    0x1001: 'LOGICAL BLOCK GUARD CHECK FAILED',
    0x1002: 'LOGICAL BLOCK APPLICATION TAG CHECK FAILED',
    0x1003: 'LOGICAL BLOCK REFERENCE TAG CHECK FAILED',
    0x1100: 'UNRECOVERED READ ERROR',
    0x1A00: 'PARAMETER LIST LENGTH ERROR',
    0x1D00: 'MISCOMPARE DURING VERIFY OPERATION',
    0x2000: 'INVALID COMMAND OPERATION CODE',
    0x2100: 'LOGICAL BLOCK ADDRESS OUT OF RANGE',
    0x2400: 'INVALID FIELD IN CDB',
    0x2500: 'LOGICAL UNIT NOT SUPPORTED',
    0x2600: 'INVALID FIELD IN PARAMETER LIST',
    0x2700: 'WRITE PROTECTED',
    0x2900: 'POWER ON, RESET, OR BUS DEVICE RESET OCCURRED',
    0x2903: 'BUS DEVICE RESET FUNCTION OCCURRED',
    0x2907: 'I_T NEXUS LOSS OCCURRED',
    0x2A03: 'RESERVATIONS PREEMPTED',
    0x2A04: 'RESERVATIONS RELEASED',
    0x2A05: 'REGISTRATIONS PREEMPTED',
    0x2A09: 'CAPACITY DATA HAS CHANGED',
    0x3F0E: 'REPORTED LUNS DATA HAS CHANGED',
    0x5504: 'INSUFFICIENT REGISTRATION RESOURCES',
}

STATUSES = {
    0x00: 'GOOD',
    0x02: 'CHECK CONDITION',
    0x08: 'BUSY',
    0x18: 'RESERVATION CONFLICT',
    0x28: 'TASK SET FULL',
    0x40: 'TASK ABORTED',
}

RESPONSES = (
    'OK', 'OVERRUN', 'ABORTED', 'BAD_TARGET', 'RESET', 'BUSY', 'TRANSPORT_FAILURE',
    'TARGET_FAILURE', 'NEXUS_FAILURE', 'FAILURE', 'FUNCTION_SUCCEEDED', 'FUNCTION_REJECTED',
    'INCORRECT_LUN',
)  # fmt: skip


@dataclass(frozen=True)
class Sense:
    """Sense data taken apart; `information` is None where it is not valid."""

    key: int
    asc: int
    ascq: int
    information: int | None
    descriptor: bool

    def __str__(self) -> str:
        """As people quote it: 5/21/00 ILLEGAL REQUEST, ..."""
        words = CODES.get(self.asc << 8 | self.ascq, 'no text for this code')
        more = '' if self.information is None else f', information {self.information}'
        return f'{self.key:X}/{self.asc:02X}/{self.ascq:02X} {KEYS[self.key]}, {words}{more}'


def parse_sense(data: bytes) -> Sense | None:
    """Fixed or descriptor sense data; None if they are neither."""
    if len(data) < 8 or data[0] & 0x7F not in (0x70, 0x71, 0x72, 0x73):
        return None
    if data[0] & 0x02:
        information = None
        if len(data) >= 20 and data[7] >= 12 and data[8] == 0 and data[10] & 0x80:
            information = int.from_bytes(data[12:20], 'big')
        return Sense(data[1] & 0x0F, data[2], data[3], information, True)
    if len(data) < 14:
        return None
    information = int.from_bytes(data[3:7], 'big') if data[0] & 0x80 else None
    return Sense(data[2] & 0x0F, data[12], data[13], information, False)
