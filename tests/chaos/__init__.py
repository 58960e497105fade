"""Faults by the seed, in virtual time, over the real gateway: ``python -m tests.chaos --help``."""
