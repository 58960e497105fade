"""Routers and the gateway beside each other, in front of look-alikes that cost nothing."""
