"""Look-alikes as routers and clients see them: openai's client, Prometheus' parser, ZMQ."""

import itertools
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import openai
import pytest
import zmq
import zmq.asyncio

from agent_runtime.backends.kv_event_wire import BlockRemoved, BlockStored, parse_frames
from agent_runtime.prompts.block_hashes import extend_hashes
from tests.fake_runner import HELLO
from tests.look_alike_rack import BLOCK, MODEL, ServedLookAlikes, served_look_alikes

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def clients_of(
    **kwargs: Any,
) -> AsyncIterator[tuple[list[openai.AsyncOpenAI], ServedLookAlikes]]:
    async with served_look_alikes(**kwargs) as served:
        clients = [
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=30)
            for url in served.urls
        ]
        async with clients[0], clients[1]:
            yield clients, served


async def ask(client: openai.AsyncOpenAI, messages: list[Any], **kwargs: Any) -> Any:
    return await client.chat.completions.create(model=MODEL, messages=messages, **kwargs)


def cached_tokens(answer):
    return answer.usage.prompt_tokens_details.cached_tokens


async def test_each_is_an_engine_of_its_own_and_hits_only_what_it_computed() -> None:
    async with clients_of() as ((first, second), served):
        messages = [{"role": "user", "content": "Read the file, then say what it does. " * 20}]
        answer = await ask(first, messages, max_tokens=40)
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        messages.append({"role": "user", "content": "And now the next one."})
        assert cached_tokens(await ask(second, messages, max_tokens=5)) == 0
        known = answer.usage.total_tokens
        assert known - 2 * BLOCK <= cached_tokens(await ask(first, messages, max_tokens=5)) <= known
        assert cached_tokens(await ask(second, messages, max_tokens=5)) > known - 2 * BLOCK
        await served.wait_until_idle()


async def test_conversations_with_the_same_beginning_share_its_blocks() -> None:
    async with clients_of() as ((first, _), _):
        system = {"role": "system", "content": "You are a careful engineer. " * 40}
        for number in range(3):
            user = {"role": "user", "content": f"I am agent {number}."}
            cached = cached_tokens(await ask(first, [system, user], max_tokens=2))
            assert (cached > 200) == (number > 0)


async def test_a_stream_says_the_same_as_the_answer_in_one_piece() -> None:
    async with clients_of() as ((first, second), _):
        whole = await ask(second, HELLO, max_tokens=30)
        assert whole.id != (await ask(first, HELLO, max_tokens=1)).id
        stream = await ask(
            first, HELLO, max_tokens=30, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_the_routes_that_routers_ask_are_as_vllm_has_them() -> None:
    async with served_look_alikes() as served, httpx2.AsyncClient(base_url=served.urls[0]) as http:
        for method, path in (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.content) == (200, b"")
        assert (await http.get("/version")).json() == {"version": "0.32.0"}
        assert (await http.get("/kv_event_sources")).json() == {}
        assert (await http.get("/load")).json() == {"server_load": 0}
        (card,) = (await http.get("/v1/models")).json()["data"]
        assert (card["id"], card["owned_by"]) == (MODEL, "vllm")
        assert card["max_model_len"] == served.look_alikes.rack.engines[0].max_context_tokens
        unknown = await http.get("/nothing")
        assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
        wrong = await http.post("/v1/chat/completions", json={"messages": HELLO, "temperature": 9})
        error = wrong.json()["error"]
        assert (wrong.status_code, error["code"], error["type"]) == (400, 400, "BadRequestError")
        assert error["param"] == "temperature"
        other = await http.post("/v1/chat/completions", json={"messages": HELLO, "model": "gpt-9"})
        assert other.json()["error"]["type"] == "NotFoundError"


async def test_tokenize_counts_what_usage_counts() -> None:
    async with clients_of() as ((client, _), served), httpx2.AsyncClient() as http:
        url = f"{served.urls[0]}/tokenize"
        told = (await http.post(url, json={"messages": HELLO})).json()
        assert told["count"] == len(told["tokens"])
        assert told["count"] == (await ask(client, HELLO, max_tokens=1)).usage.prompt_tokens
        prompt = {"prompt": "Plan the day.", "return_token_strs": True}
        plain = (await http.post(url, json=prompt)).json()
        assert plain["token_strs"] == ["Plan", " the", " day", "."]
        assert plain["count"] == 4
        for body in ({}, {"prompt": "x", "messages": HELLO}, {"prompt": 7}):
            refused = await http.post(url, json=body)
            assert refused.status_code == 400
            assert "prompt" in refused.json()["error"]["message"]


async def test_the_metrics_are_vllms_and_move_as_they_should() -> None:
    async with clients_of() as ((client, _), served):
        before = await served.metrics(0)
        assert set(before.values()) >= {0.0, 1.0}
        assert before["vllm:cache_config_info"] == 1
        assert before["vllm:kv_cache_usage_perc"] == 0
        first = await ask(client, HELLO, max_tokens=20, extra_body={"ignore_eos": True})
        long = [{"role": "user", "content": "Say a lot about the day. " * 30}]
        stopped = [await ask(client, long, max_tokens=5000) for _ in range(2)]
        await served.wait_until_idle()
        after = await served.metrics(0)
        answers = [first, *stopped]
        assert after.keys() == before.keys()
        prompt = sum(answer.usage.prompt_tokens for answer in answers)
        generated = sum(answer.usage.completion_tokens for answer in answers)
        cached = sum(cached_tokens(answer) for answer in answers)
        assert cached > 0
        expected = {
            "vllm:prompt_tokens_total": prompt,
            "vllm:generation_tokens_total": generated,
            "vllm:prefix_cache_queries_total": prompt,
            "vllm:prefix_cache_hits_total": cached,
            "vllm:prompt_tokens_by_source_total{source=local_compute}": prompt - cached,
            "vllm:request_success_total{finished_reason=length}": 1,
            "vllm:request_success_total{finished_reason=stop}": 2,
            "vllm:time_to_first_token_seconds_count": 3,
            "vllm:inter_token_latency_seconds_count": generated - 3,
            "vllm:e2e_request_latency_seconds_count": 3,
            "vllm:e2e_request_latency_seconds_bucket{le=+Inf}": 3,
            "vllm:request_prompt_tokens_sum": prompt,
            "vllm:request_params_max_tokens_sum": 20 + 2 * 5000,
            "vllm:iteration_tokens_total_sum": prompt - cached + generated,
            "vllm:num_requests_running": 0,
        }
        assert {name: after[name] for name in expected} == expected
        parts = ("request_queue_time", "request_prefill_time", "request_decode_time")
        whole = sum(after[f"vllm:{part}_seconds_sum"] for part in parts)
        assert whole == pytest.approx(after["vllm:e2e_request_latency_seconds_sum"])
        assert after["panjiu_lateness_seconds_count"] > 0
        other = await served.metrics(1)
        assert other["vllm:prompt_tokens_total"] == 0


async def test_kv_usage_rises_with_a_stream_and_is_0_after_its_client_left() -> None:
    async with clients_of(speed=20.0) as ((client, _), served):
        stream = await ask(
            client, HELLO, max_tokens=200_000, stream=True, extra_body={"ignore_eos": True}
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        running = await served.metrics(0)
        assert running["vllm:num_requests_running"] == 1
        assert running["vllm:kv_cache_usage_perc"] > 0
        await stream.close()
        await served.wait_until_idle()
        idle = await served.metrics(0)
        assert idle["vllm:num_requests_running"] == 0
        assert idle["vllm:kv_cache_usage_perc"] == 0


END_OF_REPLAY = [b"", (-1).to_bytes(8, "big", signed=True), b""]


@asynccontextmanager
async def subscriber(
    context: zmq.asyncio.Context, port: int, client: openai.AsyncOpenAI
) -> AsyncIterator[zmq.asyncio.Socket]:
    """A subscription that has arrived: the client asks until something is heard."""
    with context.socket(zmq.SUB) as socket:
        socket.subscribe(b"kv")
        socket.connect(f"tcp://127.0.0.1:{port}")
        with anyio.fail_after(20):
            for number in itertools.count():
                await ask(client, [{"role": "user", "content": f"{number} hello " * 20}])
                if await socket.poll(50):
                    break
        yield socket


async def heard_up_to(socket: zmq.asyncio.Socket, sequence: int) -> list[list[bytes]]:
    messages = []
    with anyio.fail_after(10):
        while True:
            messages.append(await socket.recv_multipart())
            if parse_frames(messages[-1])[1] == sequence:
                return messages


async def replayed(context: zmq.asyncio.Context, port: int, *requests: bytes) -> list[list[bytes]]:
    """The answers to replay requests, up to the first end of one."""
    messages: list[list[bytes]] = []
    with context.socket(zmq.DEALER) as socket, anyio.fail_after(10):
        socket.connect(f"tcp://127.0.0.1:{port}")
        for request in requests:
            await socket.send_multipart([b"", request])
        while True:
            empty, *message = await socket.recv_multipart()
            assert empty == b""
            if message == END_OF_REPLAY:
                return messages
            messages.append(message)


def held_after(events: list[Any]) -> Counter[int]:
    """Copies of each block that an engine has, by what it published."""
    held: Counter[int] = Counter()
    for event in events:
        change = 1 if isinstance(event, BlockStored) else -1
        held.update(dict.fromkeys(event.block_hashes, change))
    assert min(held.values()) >= 0
    return +held


async def test_a_subscriber_knows_exactly_what_the_engine_has() -> None:
    with zmq.asyncio.Context() as context:
        async with (
            clients_of(kv_blocks=60, kv_events=True) as ((client, other), served),
            subscriber(context, served.kv_ports[0][0], client) as events,
        ):
            for number in range(8):
                messages = [{"role": "user", "content": f"Agent {number}: look at it. " * 25}]
                named = {"session_id": f"agent-{number}"} if number % 2 else {}
                await ask(client, messages, max_tokens=60, extra_body=named)
            await ask(other, HELLO, max_tokens=60)
            await served.wait_until_idle()
            missed = await replayed(context, served.kv_ports[0][1], bytes(8))
            heard = await heard_up_to(events, len(missed) - 1)
            everything = [*missed[: len(missed) - len(heard)], *heard]
    parsed = [parse_frames(message) for message in everything]
    assert [sequence for _, sequence, _ in parsed] == list(range(len(parsed)))
    assert {topic for topic, _, _ in parsed} == {"kv"}
    told: list[Any] = [event for _, _, batch in parsed for event in batch.events]
    assert any(isinstance(event, BlockRemoved) for event in told)
    pool = served.look_alikes.rack.engines[0].residency._kv.pool
    assert set(held_after(told)) == set(pool._found)
    sessions = {event.session_id for event in told if isinstance(event, BlockStored)}
    assert sessions == {None, "agent-1", "agent-3", "agent-5", "agent-7"}
    for event in told:
        if isinstance(event, BlockStored):
            assert len(event.token_ids) == BLOCK * len(event.block_hashes)
            assert event.block_size == BLOCK
            assert rehashed(event) == event.block_hashes


def rehashed(event: BlockStored) -> list[int]:
    """Hashes made from the tokens alone, as a router makes its own."""
    before = [] if event.parent_block_hash is None else [int(event.parent_block_hash)]
    hashes = list(before)
    tokens = array("I", [0] * BLOCK * len(before) + event.token_ids)
    extend_hashes(hashes, tokens, BLOCK)
    return hashes[len(before) :]


async def test_a_replay_fills_the_gap_of_who_came_late() -> None:
    with zmq.asyncio.Context() as context:
        async with clients_of(kv_blocks=60, kv_events=True) as ((client, _), served):
            events_port, replay_port = served.kv_ports[0]
            async with httpx2.AsyncClient() as http:
                told = (await http.get(f"{served.urls[0]}/kv_event_sources")).json()
            assert told["0"]["endpoint"] == f"tcp://127.0.0.1:{events_port}"
            assert told["0"]["replay_endpoint"] == f"tcp://127.0.0.1:{replay_port}"
            async with subscriber(context, events_port, client) as events:
                for number in range(6):
                    messages = [{"role": "user", "content": f"Agent {number}: look at it. " * 25}]
                    await ask(client, messages, max_tokens=20)
                await served.wait_until_idle()
                since_start = await replayed(context, replay_port, bytes(8))
                heard = await heard_up_to(events, len(since_start) - 1)
            since_3 = await replayed(context, replay_port, b"what?", (3).to_bytes(8, "big"))
    assert len(since_start) > 6
    assert since_start[len(since_start) - len(heard) :] == heard
    assert since_3 == since_start[3:], "what is no request gets no answer"
