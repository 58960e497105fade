"""Redis as a place to keep things: what can be wrong with one."""
