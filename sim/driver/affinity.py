"""Which request queue a vCPU submits to, and on which vCPU that queue's interrupts arrive.

virtio_scsi asks for managed vectors with two of them (control, event) left out of the spread
(virtscsi_init: struct irq_affinity, pre_vectors = 2). The kernel then groups the CPUs evenly over
the others (lib/group_cpus.c, group_cpus_evenly; before 6.3 kernel/irq/affinity.c): neighbours stay
together, and the first groups have one more where it does not come out even. blk-mq maps each CPU
to the queue whose vector it is on (blk_mq_virtio_map_queues), and the vector is delivered to the
first CPU of its group. One NUMA node, no hyper-threads.
"""


def groups(vcpus: int, queues: int) -> list[range]:
    """The vCPUs of each request queue; 1 <= queues <= vcpus."""
    least, more = divmod(vcpus, queues)
    ends = [least * (queue + 1) + min(queue + 1, more) for queue in range(queues)]
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def queue_of(vcpu: int, vcpus: int, queues: int) -> int:
    """The request queue that a vCPU submits to."""
    return next(q for q, group in enumerate(groups(vcpus, queues)) if vcpu in group)
