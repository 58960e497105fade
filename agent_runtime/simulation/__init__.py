"""Virtual time: the discrete-event driver and what a run measures."""
