"""What the scheduler costs."""
