"""The keys of what is done to a run at given times: tables [[tmf]] and [[hotplug]].

[[tmf]]
at = "2ms"
function = "lun_reset"
"""

from dataclasses import dataclass
from typing import Any

from sim.formats.key import key

DAY_NS = 86_400 * 10**9
AUTO: Any = None  # load() chooses, by the rest of the config

# The task management functions of virtio-scsi in the order of their codes, then the AN requests.
TMF_FUNCTIONS = (
    'abort_task',
    'abort_task_set',
    'clear_aca',
    'clear_task_set',
    'i_t_nexus_reset',
    'lun_reset',
    'query_task',
    'query_task_set',
)
AN_FUNCTIONS = ('an_query', 'an_subscribe')


@dataclass(frozen=True, kw_only=True)
class Tmf:
    """A request that the guest sends on the control queue."""

    at: int = key(0, 'time', 'when the guest decides on it', unit='ms', high=DAY_NS)
    function: str = key(
        'lun_reset', 'choice', 'what it asks for; lun_reset is what sg_reset --device does',
        choices=TMF_FUNCTIONS + AN_FUNCTIONS,
    )  # fmt: skip
    lun: int = key(0, 'int', 'number of the LUN', high=0x3FFF)
    target: int = key(AUTO, 'int', 'its target; auto is device.boot_tpgt', high=255)


@dataclass(frozen=True, kw_only=True)
class Hotplug:
    """A LUN that comes or goes at the host."""

    at: int = key(0, 'time', 'when', unit='ms', high=DAY_NS)
    action: str = key('remove', 'choice', 'what becomes of it', choices=('add', 'remove'))
    lun: int = key(0, 'int', 'number of the LUN', high=0x3FFF)
    target: int = key(AUTO, 'int', 'its target; auto is device.boot_tpgt', high=255)
