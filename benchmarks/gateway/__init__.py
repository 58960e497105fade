"""What the gateway costs before real engines."""
