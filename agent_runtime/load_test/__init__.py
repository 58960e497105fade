"""Sessions as load on any OpenAI-compatible server, and what a client sees of it."""
