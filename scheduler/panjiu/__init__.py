"""Panjiu's own policy: one objective in seconds over place, hold, move, keep and drop."""
