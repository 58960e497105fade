"""The session scheduler before vLLM's AsyncLLM in this process; run with vLLM's Python.

    python tests/vllm/in_process.py MODEL_DIR OUT

Writes what was seen to OUT, as JSON; vLLM prints what it likes.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import anyio
import httpx2
import openai

from agent_runtime.backends.vllm_engine.in_process_engine import open_in_process_engine
from agent_runtime.backends.vllm_engine.in_process_http import (
    IN_PROCESS_URL,
    beside_in_process_engine,
)
from agent_runtime.backends.vllm_servers.engine_connections import open_engine_http
from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory, EngineSources
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.clock import Clock
from agent_runtime.engine_service import EngineService, EngineServiceOptions
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def arguments(model: str) -> list[str]:
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{free_port()}",
    }
    return [
        "--model", model, "--served-model-name", "tiny", "--dtype", "bfloat16",
        "--max-model-len", "8192", "--max-num-seqs", "8", "--block-size", "128",
        "--num-gpu-blocks-override", "160", "--enforce-eager", "--enable-prompt-tokens-details",
        "--kv-events-config", json.dumps(events),
    ]  # fmt: skip


async def turns(client: openai.AsyncOpenAI) -> list[int]:
    """Return what each turn of a growing session found in the cache."""
    messages: list[Any] = []
    found = []
    for number in range(3):
        messages.append({"role": "user", "content": f"part {number} " * 150})
        answer = await client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=8, extra_body={"session_id": "agent-1"}
        )
        usage = answer.usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        found.append(usage.prompt_tokens_details.cached_tokens or 0)
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    return found


async def abandoned(client: openai.AsyncOpenAI) -> int:
    """Read a few chunks of a long reply and leave; return how many."""
    num_chunks = 0
    stream = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "go on"}],
        max_tokens=4000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    async for _ in stream:
        num_chunks += 1
        if num_chunks > 5:
            break
    await stream.close()
    return num_chunks


async def main(model: str, out: str) -> None:
    """Serve the model in this process, talk to it, and say what was seen."""
    fleet = EngineFleet(1)
    directory = EngineDirectory(EngineSources((IN_PROCESS_URL,)), print)
    async with (
        open_in_process_engine(arguments(model)) as app,
        open_engine_http() as others,
        beside_in_process_engine(app, others) as http,
        anyio.create_task_group() as tasks,
    ):
        servers = VllmServers(fleet, http, directory, Clock())
        tasks.start_soon(servers.run)
        with anyio.fail_after(60):
            while not fleet.up():
                await anyio.sleep(0.1)
        service = EngineService(servers, EngineServiceOptions("panjiu"), Clock())
        transport = StreamingAsgiTransport(service.app)
        async with httpx2.AsyncClient(transport=transport, timeout=None) as web:
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://gateway/v1", http_client=web, max_retries=0
            )
            found = await turns(client)
            num_chunks = await abandoned(client)
        running = 1
        with anyio.move_on_after(10):
            while running := int(servers.probe.num_running(fleet.slots[0].replica_id)):
                await anyio.sleep(0.2)
        said = {
            "cached_tokens": found,
            "num_chunks": num_chunks,
            "running_after_abort": running,
            "has_events": fleet.slots[0].has_events,
        }
        await anyio.Path(out).write_text(json.dumps(said))
        servers.stop()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
