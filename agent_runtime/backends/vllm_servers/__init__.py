"""Real vLLM servers as a backend: turns over HTTP, residency from KV events, health and faults."""
