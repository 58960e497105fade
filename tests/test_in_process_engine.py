"""An engine in the gateway's own process: what it answers, how it ends, and vLLM's own in one."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.backends.vllm_engine.in_process_engine import open_in_process_engine
from agent_runtime.backends.vllm_engine.in_process_http import (
    IN_PROCESS_URL,
    MAX_BUFFERED_CHUNKS,
    InProcessEngine,
    beside_in_process_engine,
)
from agent_runtime.backends.vllm_servers.engine_connections import open_engine_http
from agent_runtime.backends.vllm_servers.engine_http import (
    EngineReply,
    EngineUnreachableError,
)
from agent_runtime.errors import ConfigError
from tests.vllm.servers import ENVIRONMENT, build_model

pytestmark = pytest.mark.anyio
VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class App:
    """Streams numbers for ever, and knows how many it said."""

    def __init__(self) -> None:
        self.num_said = 0
        self.app = Starlette(
            routes=[
                Route("/count", self._count, methods=["POST"]),
                Route("/busy", self._busy, methods=["POST"]),
                Route("/fails", self._fails, methods=["GET"]),
                Route("/echo", self._echo, methods=["GET"]),
            ]
        )

    async def _count(self, request: Request) -> Response:
        async def numbers() -> AsyncIterator[bytes]:
            while True:
                self.num_said += 1
                yield f"{self.num_said} ".encode()

        return StreamingResponse(numbers())

    async def _busy(self, request: Request) -> Response:
        body = (await request.body()).decode()
        return PlainTextResponse(body.upper(), 503, {"retry-after": "7"})

    async def _fails(self, request: Request) -> Response:
        raise RuntimeError("the engine is dead")

    async def _echo(self, request: Request) -> Response:
        return PlainTextResponse(str(request.url.query))


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[App, InProcessEngine]]:
    one = App()
    async with open_engine_http() as others, beside_in_process_engine(one.app, others) as http:
        yield one, http


async def whole(reply: EngineReply) -> bytes:
    body = b""
    while data := await reply.next_bytes():
        body += data
    return body


async def test_requests_and_answers_pass_as_over_the_network() -> None:
    async with engine() as (_, http):
        reply = await http.send("POST", f"{IN_PROCESS_URL}/busy", b"so busy", {"x-request-id": "1"})
        assert (reply.status, reply.retry_after) == (503, "7")
        assert await whole(reply) == b"SO BUSY"
        assert reply.is_at_end
        assert await http.get(f"{IN_PROCESS_URL}/echo?a=1") == (200, b"a=1")


async def test_an_engine_that_fails_is_unreachable() -> None:
    async with engine() as (_, http):
        with pytest.raises(EngineUnreachableError, match="the engine is dead"):
            await http.get(f"{IN_PROCESS_URL}/fails")


async def test_a_reader_that_takes_its_time_holds_the_engine_up() -> None:
    async with engine() as (one, http):
        reply = await http.send("POST", f"{IN_PROCESS_URL}/count", b"", {})
        assert await reply.next_bytes() == b"1 "
        await anyio.wait_all_tasks_blocked()
        assert one.num_said <= MAX_BUFFERED_CHUNKS + 3
        reply.close()


async def test_a_reader_that_leaves_ends_the_turn() -> None:
    async with engine() as (one, http):
        reply = await http.send("POST", f"{IN_PROCESS_URL}/count", b"", {})
        await reply.next_bytes()
        reply.close()
        with anyio.fail_after(5):
            await anyio.wait_all_tasks_blocked()  # it would never be if the app went on
        num_said = one.num_said
        await anyio.lowlevel.checkpoint()
        assert one.num_said == num_said


async def test_other_addresses_are_asked_over_the_network() -> None:
    async with engine() as (_, http):
        with pytest.raises(EngineUnreachableError):
            await http.get("http://127.0.0.1:9/health")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
async def test_without_vllm_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'panjiu\[vllm\]'"):
        async with open_in_process_engine(["model"]):
            pass


@pytest.mark.skipif(VLLM_PYTHON is None, reason="PANJIU_VLLM_PYTHON is not set")
def test_live_vllm_in_this_process_takes_sessions_and_frees_what_is_aborted(
    tmp_path: Path,
) -> None:
    assert VLLM_PYTHON is not None
    model = build_model(VLLM_PYTHON, tmp_path / "model")
    script = Path(__file__).parent / "vllm" / "in_process.py"
    root = Path(__file__).parents[1]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [VLLM_PYTHON, str(script), str(model), str(tmp_path / "said.json")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads((tmp_path / "said.json").read_text())
    assert said["cached_tokens"][0] == 0
    assert min(said["cached_tokens"][1:]) > 0
    assert said["num_chunks"] > 3
    assert said["running_after_abort"] == 0
    assert said["has_events"]
