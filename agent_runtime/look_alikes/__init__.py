"""The emulated rack as its engines: one vLLM look-alike a replica, for any router in front."""
