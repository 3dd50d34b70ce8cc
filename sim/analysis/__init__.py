"""What to make of a finished run: frames, statistics, theory to hold it against, figures."""
