"""What the emulated model says: text, tool calls and JSON, from a seed or a script."""
