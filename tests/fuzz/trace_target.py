"""Traces in every form that is read, and what is done first with what they hold."""

import tempfile
from contextlib import suppress

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.workload.sources import load_workload
from tests.fuzz.target import Target


def feed_traces(data: bytes) -> None:
    """A trace file, gzipped or not, whatever form it is of."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file, suppress(AgentRuntimeError):
        file.write(data)
        file.flush()
        load_workload(file.name, limit=4, seed=0)


_SESSION = (
    b'{"id":"s","block_size":64,"tool_tokens":0,"system_tokens":0,"requests":[{"type":"n","t":0.0,'
    b'"in":128,"out":10,"hash_runs":[[1,2]],"api_time":2.0,"think_time":1.0},{"type":"subagent",'
    b'"t":9.0,"duration_ms":5500,"agent_id":"a","requests":[{"type":"s","t":4.0,"in":64,"out":7,'
    b'"hash_ids":[5]}]}]}'
)
TRACE_TARGET = Target(
    feed_traces,
    (
        _SESSION,
        b"[" + _SESSION + b"]",
        (
            b'{"timestamp":0,"input_length":1000,"output_length":10,"hash_ids":[0,1]}\n'
            b'{"timestamp":27,"input_length":1500,"output_length":3,"hash_ids":[0,2,3]}\n'
        ),
        (
            b'{"custom_id":"c","method":"POST","url":"/v1/chat/completions","body":{"model":"m",'
            b'"messages":[{"role":"user","content":"u"}],"max_tokens":3}}\n'
        ),
    ),
)
