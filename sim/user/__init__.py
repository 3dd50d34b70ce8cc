"""The two backends in user space: SPDK's reactor and QEMU's IOThread."""
