"""Routers and the gateway beside each other, and what the gateway costs before engines."""
