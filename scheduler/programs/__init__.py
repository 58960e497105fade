"""Policies that look at whole agents and not at single turns, as others have published them."""
