"""A short, designed load on a running engine, from which a chip can be fitted."""
