"""The parts of the guest behind sim.guest: submission, interrupts, scheduler, kernel threads."""
