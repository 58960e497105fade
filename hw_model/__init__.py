"""The machine, and what vLLM does on it: specs with sources, step time, and a sans-IO engine."""
