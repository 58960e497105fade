"""Policies beside each other: the same sessions at the same load on the same rack."""
