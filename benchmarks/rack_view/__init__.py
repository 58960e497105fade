"""What it costs a server that its rack can be watched."""
