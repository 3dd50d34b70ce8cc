"""One question per file; each prints its table and draws its figures. experiments/command.py tells
the form, `python -m experiments` lists them.
"""
