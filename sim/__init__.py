"""Follow every SCSI request through a simulated vhost-scsi: guest, ring, worker, disk and back."""

__version__ = "0.1.0"
