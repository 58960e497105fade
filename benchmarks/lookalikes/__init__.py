"""How well look-alikes look alike."""
