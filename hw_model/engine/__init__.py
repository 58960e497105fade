"""One replica: vLLM V1's scheduling and KV cache rules as pure logic. Time is an argument."""
