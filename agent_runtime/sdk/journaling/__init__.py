"""What journals have in common, wherever they keep sessions: replaying, batches, reading back."""
