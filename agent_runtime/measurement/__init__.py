"""What a run on the rack leaves behind, whoever drove it, and its summary."""
