"""What virtual time costs: wake-ups, streamed tokens, whole agent fleets."""
