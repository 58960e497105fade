"""Policies that place every turn at once: a policy sees the turn, its session and the load."""
