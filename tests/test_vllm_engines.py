"""The gateway before two real vLLM servers: what it passes, keeps together, knows and survives."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import anyio
import httpx2
import openai
import pytest

from agent_runtime.backends.vllm_servers.engine_metrics import parse_metrics
from scheduler.ids import SessionId
from tests.served_engines import ServedEngines, gateway_before, until
from tests.vllm.servers import BLOCK_TOKENS, MODEL, VllmServer, build_model, vllm_servers

VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")
CHAT = "/v1/chat/completions"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(VLLM_PYTHON is None, reason="PANJIU_VLLM_PYTHON is not set"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmServer]]:
    assert VLLM_PYTHON is not None
    model = build_model(VLLM_PYTHON, tmp_path_factory.mktemp("vllm") / "model")
    with vllm_servers(VLLM_PYTHON, model, 2) as running:
        yield running


@asynccontextmanager
async def gateway(
    servers: list[VllmServer], policy: str = "panjiu"
) -> AsyncIterator[tuple[ServedEngines, openai.AsyncOpenAI]]:
    urls = [server.url for server in servers if server.process.poll() is None]
    async with (
        gateway_before(urls, policy=policy) as served,
        openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0) as client,
    ):
        yield served, client


def words(seed: int, num: int) -> str:
    return " ".join(f"def part_{seed}_{i}(self):" for i in range(num))


class Agent:
    """A session that grows, and checks before every turn that what is known of its KV is so."""

    def __init__(self, served: ServedEngines, name: str, num_words: int) -> None:
        self.served = served
        self.name = name
        seed = sum(map(ord, name))
        self.messages: list[Any] = [{"role": "user", "content": words(seed, num_words)}]

    def known(self) -> list[int]:
        """Return how many of its tokens each engine has, as far as is known."""
        residency, session = self.served.servers.probe.residency, SessionId(self.name)
        return [
            residency.num_cached_tokens(slot.replica_id, session)
            for slot in self.served.servers.fleet.slots[:2]
        ]

    async def turn(self, client: openai.AsyncOpenAI, max_tokens: int = 40) -> tuple[int, int]:
        """Take a turn; return the tokens it found in the KV, and those that were known of."""
        before = self.known()
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=self.messages,
            max_tokens=max_tokens,
            extra_body={"session_id": self.name, "ignore_eos": True},
        )
        session = self.served.service.scheduler._sessions[SessionId(self.name)]
        assert session.home is not None
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        assert session.context_tokens == answer.usage.total_tokens
        self.messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        self.messages.append({"role": "user", "content": f"go on, part {len(self.messages)}"})
        return answer.usage.prompt_tokens_details.cached_tokens or 0, before[session.home]


async def test_live_streams_and_whole_answers_pass(servers: list[VllmServer]) -> None:
    async with gateway(servers) as (served, client):
        assert [m.id async for m in client.models.list()] == [MODEL]
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "import"}],
            "max_tokens": 12,
            "temperature": 0,
            "extra_body": {"ignore_eos": True, "session_id": "same"},
        }
        whole = await client.chat.completions.create(**asked)
        asked_for_usage: dict[str, Any] = {**asked, "stream_options": {"include_usage": True}}
        stream = await client.chat.completions.create(**asked_for_usage, stream=True)
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 12
        completion = await client.completions.create(model=MODEL, prompt="import os", max_tokens=3)
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 3
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="x", messages=asked["messages"])
        with pytest.raises(openai.BadRequestError, match="temperature"):
            await client.chat.completions.create(**{**asked, "temperature": -1})
        too_long = {**asked, "messages": [{"role": "user", "content": words(1, 2000)}]}
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await client.chat.completions.create(**too_long)
        assert served.servers.fleet.num_up == 2


async def test_live_tool_calls_are_parsed_and_tell_what_the_session_does_next(
    servers: list[VllmServer],
) -> None:
    # Random weights talk nonsense, so what they must say is given; vLLM's parser reads it.
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    said = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    function = {"name": "weather", "parameters": {"type": "object"}}
    async with gateway(servers) as (served, client):
        for stream in (False, True):
            asked: dict[str, Any] = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "the weather?"}],
                "tools": [{"type": "function", "function": function}],
                "max_tokens": 100,
                "extra_body": {
                    "session_id": f"tools-{stream}",
                    "structured_outputs": {"choice": [said]},
                },
            }
            if stream:
                chunks = await client.chat.completions.create(**asked, stream=True)
                deltas = [c.choices[0].delta async for c in chunks if c.choices]
                parts = [part.function for d in deltas for part in d.tool_calls or ()]
                name = "".join(part.name or "" for part in parts if part)
                arguments = "".join(part.arguments or "" for part in parts if part)
            else:
                answer = await client.chat.completions.create(**asked)
                parsed = (answer.choices[0].message.tool_calls or [])[0]
                assert parsed.type == "function"
                name, arguments = parsed.function.name, parsed.function.arguments
            assert name == "weather"
            assert json.loads(arguments) == {"city": "Oslo"}
            session = served.service.scheduler._sessions[SessionId(f"tools-{stream}")]
            assert session.gap.tools == ("weather",)


async def test_live_messages_and_responses_pass_and_are_turns_of_their_sessions(
    servers: list[VllmServer],
) -> None:
    prompt = words(3, 40)
    async with (
        gateway(servers) as (served, client),
        anthropic.AsyncAnthropic(base_url=served.url, api_key="-", max_retries=0) as anthropics,
        httpx2.AsyncClient(base_url=served.url, timeout=60) as http,
    ):
        messages: list[Any] = [{"role": "user", "content": prompt}]
        found = set()
        for turn in range(2):
            asked: Any = {"model": MODEL, "messages": messages, "max_tokens": 8}
            counted = await anthropics.messages.count_tokens(model=MODEL, messages=messages)
            answer = await anthropics.messages.with_raw_response.create(**asked)
            message = await answer.parse()
            found.add(answer.headers["x-session-id"])
            used = message.usage
            cached = used.cache_read_input_tokens or 0
            created = used.cache_creation_input_tokens or 0
            assert used.input_tokens + cached + created == counted.input_tokens
            assert (cached >= BLOCK_TOKENS) == bool(turn)
            events = await anthropics.messages.create(**asked, stream=True)
            assert [event.type async for event in events][-1] == "message_stop"
            messages.append({"role": "assistant", "content": message.content})
            messages.append({"role": "user", "content": "go on"})
        assert len(found) == 1

        first = await client.responses.create(model=MODEL, input=prompt, max_output_tokens=8)
        assert (await client.responses.retrieve(first.id)).id == first.id
        stream = await client.responses.create(
            model=MODEL,
            input="go on",
            max_output_tokens=8,
            previous_response_id=first.id,
            stream=True,
        )
        last = [event async for event in stream][-1]
        assert last.type in {"response.completed", "response.incomplete"}
        assert last.response.usage is not None
        assert first.usage is not None
        assert last.response.usage.input_tokens > first.usage.input_tokens
        assert last.response.usage.input_tokens_details.cached_tokens >= BLOCK_TOKENS

        cut = (await http.post("/tokenize", json={"model": MODEL, "prompt": "import os"})).json()
        whole = await http.post("/detokenize", json={"model": MODEL, "tokens": cut["tokens"]})
        assert "import" in whole.json()["prompt"]
        assert (
            'panjiu_turns_total{dialect="messages",outcome="answered"} 4.0'
            in (await http.get("/metrics")).text
        )


@pytest.mark.parametrize("policy", ["panjiu", "lmetric"])
async def test_live_sessions_stay_with_their_kv_and_all_that_is_known_of_it_is_so(
    servers: list[VllmServer], policy: str
) -> None:
    async with gateway(servers, policy) as (served, client):
        assert served.service.capabilities().has_events
        agents = [Agent(served, f"{policy}-{n}", 40) for n in range(4)]
        for turn in range(4):
            for agent in agents:
                cached, known = await agent.turn(client)
                await anyio.sleep(0.15)  # an engine's publisher wakes up every 0.1 s
                assert cached == known or turn == 0
                assert turn == 0 or cached >= BLOCK_TOKENS
        served.servers.probe.residency.check_invariants()


async def test_live_what_is_known_stays_so_when_engines_run_out_of_kv(
    servers: list[VllmServer],
) -> None:
    async with gateway(servers, "home_for_life") as (served, client):
        agents = [Agent(served, f"big-{n}", 350) for n in range(16)]
        losses = 0
        for turn in range(2):
            for agent in agents:
                cached, known = await agent.turn(client, max_tokens=2)
                await anyio.sleep(0.15)
                if turn:
                    assert cached == known
                    losses += cached < BLOCK_TOKENS
        assert losses > 0


async def test_live_a_client_that_leaves_frees_its_kv(servers: list[VllmServer]) -> None:
    async with gateway(servers) as (_, client):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": words(5, 100)}],
            max_tokens=6000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        await anext(aiter(stream))
        await stream.close()
        async with httpx2.AsyncClient(timeout=60) as http:
            for server in servers:
                with anyio.fail_after(60):
                    while True:
                        metrics = parse_metrics((await http.get(f"{server.url}/metrics")).text)
                        if metrics.num_running == 0 and metrics.kv_usage == 0:
                            break
                        await anyio.sleep(0.2)


async def test_live_priorities_are_taken_from_callers_and_policies(
    servers: list[VllmServer],
) -> None:
    async with gateway(servers, "plas") as (_, client):
        for extra in ({"priority": 7}, {}):
            answer = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "a"}],
                max_tokens=2,
                extra_body=extra,
            )
            assert answer.choices[0].message.content is not None


async def test_live_a_server_killed_in_the_middle_of_a_reply_costs_no_token(
    servers: list[VllmServer],
) -> None:
    async with gateway(servers) as (served, client):
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": words(9, 60)}],
            max_tokens=300,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True, "session_id": "survivor"},
        )
        ids, texts, usage, reasons = set(), [], None, []
        async for chunk in stream:
            ids.add((chunk.id, chunk.created))
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts.append(choice.delta.content or "")
                reasons.append(choice.finish_reason)
            if len(texts) == 50:
                home = served.service.scheduler._sessions[SessionId("survivor")].home
                assert home is not None
                address = served.servers.fleet.slots[home].address
                assert address is not None
                next(server for server in servers if server.url == address.url).kill()
        assert len(ids) == 1
        assert reasons[-1] == "length"
        assert usage is not None
        assert usage.completion_tokens == 300
        assert usage.total_tokens == usage.prompt_tokens + 300
        await until(lambda: served.servers.fleet.num_up == 1)
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "still there?"}], max_tokens=2
        )
        assert answer.choices[0].message.content is not None
