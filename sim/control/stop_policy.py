"""How a VM is stopped: what QEMU and the kernel do, what they could, and what they must not.

The wrong ones leave out one mechanism, or turn two steps round; `breaks` says which requirement is
there to notice. Policies that belong to other backends than the kernel's vhost-scsi are refused.
"""

from dataclasses import dataclass

from sim.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy. `breaks`: the requirement that a wrong one violates. `hypothetical`: no kernel has
    it. `lead`: it begins a chosen time before the vCPUs pause.
    """

    name: str
    what: str
    breaks: str = ''
    hypothetical: bool = False
    lead: bool = False


POLICIES = {
    policy.name: policy
    for policy in (
        Policy(name='drain', what='CLEAR_ENDPOINT waits for what is in flight, as the kernel does'),
        Policy(
            name='gate', hypothetical=True, lead=True,
            what='the worker stops fetching before the vCPUs pause, and the drain runs meanwhile',
        ),
        Policy(
            name='quiesce', lead=True,
            what='the guest begins no request for a while before its vCPUs pause (fsfreeze)',
        ),
        Policy(name='no-flush', breaks='3', what='CLEAR_ENDPOINT waits for nothing'),
        Policy(name='no-detach', breaks='2.2', what='the queues keep their backend'),
        Policy(name='no-sync', breaks='2.1', what='what GET_VRING_BASE says is lost'),
        Policy(
            name='base-before-clear', breaks='2.1',
            what='GET_VRING_BASE is read while requests are in flight',
        ),
        Policy(
            name='log-before-flush', breaks='2.3',
            what='the dirty log is synced while requests are in flight (with --log)',
        ),
    )
}  # fmt: skip

ELSEWHERE = {
    'inflight': 'it is of vhost-user-blk with an in-flight region; kernel vhost-scsi has none',
    'timeout': "it is SPDK's; kernel vhost-scsi waits without a limit",
    'suspend': 'it is of vhost-vdpa; kernel vhost-scsi has no VHOST_VDPA_SUSPEND',
    'throttle': 'it belongs to the rounds of a migration; a stop on one host has none',
}


def policy_named(name: str, lead: int) -> Policy:
    """The policy of a name. Errors: ConfigError where there is none that the kernel can."""
    if name in ELSEWHERE:
        raise ConfigError(f'--policy {name}: {ELSEWHERE[name]}; use --policy drain')
    if name not in POLICIES:
        raise ConfigError(f'--policy {name}: no such policy; known: {", ".join(POLICIES)}')
    if lead and not POLICIES[name].lead:
        raise ConfigError(f'--lead: has no meaning with --policy {name}; take it out')
    return POLICIES[name]
