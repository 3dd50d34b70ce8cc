"""What the jobs in the guest want: where, when, how much of it."""
