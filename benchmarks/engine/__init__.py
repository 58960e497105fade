"""How fast the engine is, and what a peer's says of the same requests."""
