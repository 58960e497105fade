"""The engine beside vLLM's own scheduler, step by step."""
