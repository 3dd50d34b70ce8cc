"""vhost-scsi in the kernel, beside its workers (sim.backend): requests, ioctls, dirty log."""
