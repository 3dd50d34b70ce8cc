"""One question per file; each prints its table, draws its figures and can be resumed."""
