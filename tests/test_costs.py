"""From a preset to cycles: what is refused, and that the parts of a cost are the whole."""

import pytest

from sim.costs import MODEL_PARAMETERS, Reading, derive, load_preset
from sim.errors import ConfigError

PRESET = load_preset('icx-2.6ghz')
PRICES = (5, 50, 200, 300)


def derived(stack='vhost-scsi', **overrides):
    names = {name.replace('__', '.'): value for name, value in overrides.items()}
    return derive(PRESET, names, 2_600_000_000, 200_000, stack=stack)


@pytest.mark.parametrize(
    ('stack', 'overrides', 'says'),
    [
        ('vhost-scsi', {'kick__exit_to_kernl': 1}, "'kick.exit_to_kernel_roundtrip'"),
        ('vhost-scsi', {'kick__exit_share_before_signal': 101}, 'is not a percentage'),
        ('vhost-scsi', {'vhost__worker_pop_share': 1}, 'worker_pop_share: 3 cycles are'),
        ('vhost-scsi', {'qemu_iothread__pop_share_of_req': 100}, 'are more than 100 percent'),
        ('virtio-scsi', {'qemu_iothread__cpu_per_req': 1}, 'costs.qemu_iothread.cpu_per_req: '),
        ('vhost-user-scsi', {'spdk_vhost__cpu_per_cmd_per_core': 1}, 'costs.spdk_vhost.cpu_per'),
    ],
)
def test_what_makes_no_sense_is_refused(stack, overrides, says):
    with pytest.raises(ConfigError, match=r'^costs\.') as error:
        derived(stack, **overrides)
    assert says in str(error.value)
    assert '\n' not in str(error.value)


def test_a_check_parameter_is_not_charged():
    name = next(n for n, row in PRESET.parameters.items() if row.role == 'check')
    assert name not in MODEL_PARAMETERS
    with pytest.raises(ConfigError, match="has role 'check'"):
        derive(PRESET, {name: 1}, 2_600_000_000, 200_000)


def test_costs_of_another_stack_may_be_what_they_like():
    assert derived('vhost-scsi', qemu_iothread__cpu_per_req=1).iothread_pop == 0
    assert derived('virtio-scsi', spdk_vhost__cpu_per_cmd_per_core=1).reactor_submit >= 0


def test_the_parts_of_a_cost_are_the_whole():
    read = Reading(PRESET, {}, 2_600_000_000)
    name, share = 'kick.exit_to_kernel_roundtrip', 'kick.exit_share_before_signal'
    assert sum(read.split(name, share)) == read.cycles(name)
    whole = 'qemu_iothread.cpu_per_req'
    shares = [f'qemu_iothread.{part}_share_of_req' for part in ('pop', 'submit', 'issue')]
    parts = read.parts(whole, *shares)
    assert read.cycles(whole) - len(parts) < sum(parts) <= read.cycles(whole)
    net = read.net_of_a_batch(whole, parts, 'qemu_iothread.poll_round', 'virtio-scsi', PRICES)
    assert net[1:-1] == parts[1:-1]
    assert net[0] < parts[0]
    assert net[-1] < parts[-1]


def test_a_cost_in_cycles_follows_the_clock_of_the_run():
    at = {hz: Reading(PRESET, {}, hz) for hz in (1_300_000_000, 2_600_000_000)}
    slow, fast = (read.cycles('irq.inject_to_running_vcpu_posted') for read in at.values())
    assert abs(2 * slow - fast) <= 1


def test_a_work_item_per_command_costs_more_and_nothing_else():
    batched = derive(PRESET, {}, 2_600_000_000, 200_000)
    single = derive(PRESET, {}, 2_600_000_000, 200_000, per_command=True)
    moved = {k for k, v in vars(single).items() if v != getattr(batched, k)}
    assert moved == {'worker_submit', 'lio_submit'}
    assert single.worker_submit == batched.worker_submit + 390
    assert single.lio_submit == batched.lio_submit + 520 + 1300
