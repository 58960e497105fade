"""Everything that waits, talks or stores: drivers, backends, the gateway and the command line."""
