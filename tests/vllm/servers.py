"""Real vLLM servers on this machine's CPU, with a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

MODEL = "tiny"
BLOCK_TOKENS = 128
NUM_BLOCKS = 160
READY_S = 240.0
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "1",  # two threads that spin starve the API server on two cores
}


@dataclass
class VllmServer:
    """A server under way.

    Attributes:
        url: Where it listens.
        process: The leader of its process group.
        log: What it printed.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it and all its processes, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_ports(num: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def build_model(python: str, directory: Path) -> Path:
    """Build the model; return its directory."""
    script = Path(__file__).with_name("tiny_model.py")
    environment = {**os.environ, **ENVIRONMENT}
    subprocess.run([python, str(script), str(directory)], check=True, env=environment)
    return directory


@contextmanager
def vllm_servers(python: str, model: Path, num: int) -> Iterator[list[VllmServer]]:
    """Run so many servers at once, ready for use."""
    servers: list[VllmServer] = []
    try:
        logs = [model.parent / f"vllm-{number}.log" for number in range(num)]
        servers += [_start(python, model, log) for log in logs]
        for server in servers:
            _wait_until_ready(server)
        yield servers
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.kill()


def server_command(python: str, model: Path, ports: list[int]) -> list[str]:
    """Return what starts a server: on a port, with those of its KV events and of their replay."""
    port, events, replay = ports
    config = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replay}",
    }
    outputs = {"backend": "xgrammar", "disable_any_whitespace": True}
    return [
        python, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", MODEL,
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "bfloat16", "--max-model-len", "8192", "--max-num-seqs", "16",
        "--block-size", str(BLOCK_TOKENS), "--num-gpu-blocks-override", str(NUM_BLOCKS),
        "--enforce-eager", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        "--enable-prompt-tokens-details", "--scheduling-policy", "priority",
        "--structured-outputs-config", json.dumps(outputs),
        "--kv-events-config", json.dumps(config),
    ]  # fmt: skip


def _start(python: str, model: Path, log: Path) -> VllmServer:
    ports = free_ports(3)
    with log.open("wb") as output:
        process = subprocess.Popen(
            server_command(python, model, ports),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
            cwd=model.parent,
            start_new_session=True,
        )
    return VllmServer(f"http://127.0.0.1:{ports[0]}", process, log)


def _wait_until_ready(server: VllmServer) -> None:
    until_s = time.monotonic() + READY_S  # noqa: TID251 - another process starts in real time
    while time.monotonic() < until_s:  # noqa: TID251
        if server.process.poll() is not None:
            break
        if _is_healthy(server):
            return
        time.sleep(0.5)  # noqa: TID251
    raise RuntimeError(f"vLLM did not start:\n{server.log.read_text()[-4000:]}")


def _is_healthy(server: VllmServer) -> bool:
    try:
        return httpx2.get(f"{server.url}/health", timeout=2).is_success
    except httpx2.HTTPError:
        return False
