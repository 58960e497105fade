"""What the SDK costs."""
