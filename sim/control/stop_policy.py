"""How a VM is stopped: what QEMU and the backends do, what they could, and what they must not.

The wrong ones leave out one mechanism, or turn two steps round; `breaks` says which requirement is
there to notice. A policy belongs to the backends that have it. One that a backend does not have is
refused with the reason; where the reason is only that nobody has written it, `run.hypothetical`
lets the backend do it all the same, and the report says so.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.errors import ConfigError

KERNEL, USER, EMULATED = 'vhost-scsi', 'vhost-user-scsi', 'virtio-scsi'
EVERYBODY = (KERNEL, USER, EMULATED)

DEPTH_MOST = 1024  # scsi_device_max_queue_depth() of a host with no more tags
TIMEOUT_NS = 4_000_000_000  # SPDK_VHOST_SESSION_STOP_RETRY_TIMEOUT_IN_SEC


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy. `breaks`: the requirement that a wrong one violates. `lead`: it begins a chosen
    time before the vCPUs pause. `invented`: no backend has it.

    `of`: the stacks that have it; `could`: those that have not, and why, but do it where
    run.hypothetical says so; `never`: those where it has no meaning, and why. `depth` and `timeout`
    (ns) are the parameters of `throttle` and `timeout`.
    """

    name: str
    what: str
    breaks: str = ''
    lead: bool = False
    invented: bool = False
    of: tuple[str, ...] = EVERYBODY
    could: Mapping[str, str] = field(default_factory=dict)
    never: Mapping[str, str] = field(default_factory=dict)
    depth: int | None = None
    timeout: int | None = None

    def hypothetical_on(self, stack: str) -> bool:
        """Is it none that this backend has?"""
        return self.invented or stack in self.could


NO_VHOST = 'QEMU serves the device itself: there is no backend that could'

NO_REGION = {
    KERNEL: 'kernel vhost-scsi has no in-flight region; it is of vhost-user',
    USER: 'QEMU has the in-flight region for vhost-user-blk only (property inflight-migration), '
          'not for vhost-user-scsi',
}  # fmt: skip

POLICIES = {
    policy.name: policy
    for policy in (
        Policy(
            name='drain',
            what='the stop of the device waits for what is in flight, as every backend does',
        ),
        Policy(
            name='gate', invented=True, lead=True,
            what='the worker stops fetching before the vCPUs pause, and the drain runs meanwhile',
        ),
        Policy(
            name='look', invented=True, of=(KERNEL,),
            what='as drain, and SET_ENDPOINT queues the kick work of every queue',
            never={
                USER: 'it has no SET_ENDPOINT, and its reactor looks into the rings by itself',
                EMULATED: 'it has no SET_ENDPOINT',
            },
        ),
        Policy(
            name='quiesce', lead=True,
            what='the guest begins no request for a while before its vCPUs pause (fsfreeze)',
        ),
        Policy(
            name='throttle', lead=True, depth=1,
            what='the guest may have few requests out for a while before its vCPUs pause',
        ),
        Policy(
            name='timeout', of=(USER,), timeout=TIMEOUT_NS,
            what='the drain is given up after a time and the rest left behind, as SPDK does',
            could={KERNEL: 'kernel vhost-scsi waits without a limit; it is SPDK that gives up'},
            never={EMULATED: 'QEMU drains its own block layer without a limit; it is SPDK that '
                             'gives up'},
        ),
        Policy(
            name='inflight', of=(),
            what='nobody waits: the in-flight region says what is out, and the next start submits '
                 'it again',
            could=NO_REGION, never={EMULATED: NO_VHOST + ' leave an in-flight region'},
        ),
        Policy(
            name='suspend', of=(),
            what='SUSPEND drains the queues before GET_VRING_BASE is read, as vhost-vdpa does',
            could={KERNEL: 'kernel vhost-scsi has no VHOST_VDPA_SUSPEND; it is of vhost-vdpa'},
            never={
                USER: 'GET_VRING_BASE is what suspends a vhost-user queue: that is --policy drain',
                EMULATED: NO_VHOST + ' be suspended',
            },
        ),
        Policy(name='no-flush', breaks='3', what='the stop waits for nothing'),
        Policy(name='no-detach', breaks='2.2', what='the queues go on being served'),
        Policy(
            name='no-sync', breaks='2.1', of=(KERNEL, USER),
            what='what GET_VRING_BASE says is lost',
            never={EMULATED: 'the virtqueues are QEMU\'s own: nothing has to be asked for'},
        ),
        Policy(
            name='no-region', breaks='3', of=(),
            what='as inflight, but the in-flight region does not reach the next start',
            could=NO_REGION, never={EMULATED: NO_VHOST + ' leave an in-flight region'},
        ),
        Policy(
            name='no-cancel', breaks='3', of=(),
            what='as inflight, but the disk still performs what was with it',
            could=NO_REGION, never={EMULATED: NO_VHOST + ' leave an in-flight region'},
        ),
        Policy(
            name='base-before-clear', breaks='2.1', of=(KERNEL,),
            what='GET_VRING_BASE is read while requests are in flight',
            never={
                USER: 'GET_VRING_BASE is what stops a vhost-user queue: it cannot come before',
                EMULATED: 'there is no GET_VRING_BASE',
            },
        ),
        Policy(
            name='log-before-flush', breaks='2.3', of=(KERNEL, USER),
            what='the dirty log is synced while requests are in flight (with --log)',
            never={EMULATED: 'QEMU marks the pages that it writes by itself: there is no log'},
        ),
    )
}  # fmt: skip


def policy_named(
    name: str,
    lead: int = 0,
    *,
    stack: str = KERNEL,
    hypothetical: bool = False,
    depth: int | None = None,
    timeout: int | None = None,
    option: str = '--{} {}',
) -> Policy:
    """The policy of a name with its parameters, for a backend; `option` is how the user has
    written a name and its value, for messages.

    Errors: ConfigError where the backend cannot do it, or a parameter has no meaning.
    """
    table = option.split('{')[0]
    given, drain = option.format('policy', name), option.format('policy', 'drain')
    if name not in POLICIES:
        raise ConfigError(f'{given}: no such policy; known: {", ".join(POLICIES)}')
    policy = POLICIES[name]
    if stack in policy.never:
        raise ConfigError(f'{given}: not with {stack}: {policy.never[stack]}; use {drain}')
    if stack in policy.could and not hypothetical:
        raise ConfigError(
            f'{given}: {policy.could[stack]}; use {drain}, or try it all the same '
            'with --set run.hypothetical=true'
        )
    if lead and not policy.lead:
        raise ConfigError(f'{table}lead: has no meaning with {given}; take it out')
    if depth is not None and policy.depth is None:
        raise ConfigError(f'{table}depth: has no meaning with {given}; take it out')
    if depth is not None and depth < 1:
        asked = option.format('depth', depth)
        raise ConfigError(f'{asked}: a queue depth is 1 or more; to stop it use quiesce')
    if depth is not None and depth > DEPTH_MOST:
        asked = option.format('depth', depth)
        raise ConfigError(
            f'{asked}: Linux gives no LUN a queue depth beyond {DEPTH_MOST}; lower it'
        )
    if timeout is not None and policy.timeout is None:
        raise ConfigError(f'{table}timeout: has no meaning with {given}; take it out')
    return dataclasses.replace(
        policy, depth=depth or policy.depth, timeout=policy.timeout if timeout is None else timeout
    )
