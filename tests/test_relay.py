"""Calls through the gateway to engines that look like vLLM, and every way in which they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pytest

from scheduler.ids import ReplicaId, SessionId
from tests.lookalike_engine import MODEL, LookalikeEngine, running_engine
from tests.served_engines import ServedEngines, chat_body, served_engines, streamed, until

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(served: ServedEngines) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=served.url, timeout=20)


def two_engines() -> list[LookalikeEngine]:
    return [LookalikeEngine(salt=1), LookalikeEngine(salt=2)]


def events_of(data: bytes) -> list[dict[str, Any]]:
    parts = data.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def text_of(data: bytes) -> str:
    chunks = [choice for event in events_of(data) for choice in event["choices"]]
    return "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in chunks)


async def test_a_stream_passes_as_the_engine_sent_it_but_for_the_usage_nobody_asked_for() -> None:
    engine = LookalikeEngine(salt=7)
    async with served_engines([engine]) as served, client_of(served) as client:
        through = await streamed(client, CHAT, chat_body())
        engine.ids = iter([1])  # type: ignore[assignment]
        async with httpx2.AsyncClient(base_url=served.running[0].url) as direct:
            asked = {**chat_body(), "stream_options": {"include_usage": True}}
            straight = await streamed(direct, CHAT, asked)
        events = straight.split(b"\n\n")
        assert through == b"\n\n".join(e for e in events if b'"usage"' not in e)
        engine.ids = iter([1])  # type: ignore[assignment]
        with_usage = await streamed(client, CHAT, asked)
        assert [e for e in with_usage.split(b"\n\n") if b'"usage"' not in e] == [
            e for e in events if b'"usage"' not in e
        ]
        assert b'"completion_tokens":8' in with_usage


async def test_a_whole_answer_passes_byte_by_byte_and_fields_nobody_here_knows_arrive() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine]) as served, client_of(served) as client:
        body = chat_body(repetition_detection={"x": 1}, temperature=9, model=MODEL)
        answer = await client.post(CHAT, json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "w0 w1 w2 w3 w4 w5 w6 w7"
        sent = engine.asked[0]
        assert {k: v for k, v in sent.items() if k != "session_id"} == body
        assert sent["session_id"] == answer.headers["x-session-id"]
        answer = await client.post(COMPLETIONS, json={"prompt": "say", "max_tokens": 3})
        assert answer.json()["choices"][0]["text"] == "w0 w1 w2"


async def test_the_openai_client_sees_nothing_between() -> None:
    async with (
        served_engines(two_engines()) as served,
        openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="-") as client,
    ):
        assert [m.id async for m in client.models.list()] == [MODEL]
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "a"}], max_tokens=4, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
        assert text == "w0 w1 w2 w3"
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="other", messages=[])


async def test_a_session_stays_where_its_kv_is_with_a_key_or_known_by_its_messages() -> None:
    async with served_engines(two_engines()) as served, client_of(served) as client:
        for key in ("agent-1", None):
            messages: list[dict[str, Any]] = [{"role": "user", "content": f"go {key} " * 10}]
            session = ""
            for turn in range(4):
                headers = {"x-session-id": key} if key else {}
                body = {"messages": messages, "max_tokens": 8}
                answer = await client.post(CHAT, json=body, headers=headers)
                cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
                assert (cached > 0) == (turn > 0)
                messages.append(answer.json()["choices"][0]["message"])
                messages.append({"role": "user", "content": f"and {turn}"})
                session = answer.headers["x-session-id"]
            asked = [[b["session_id"] for b in engine.asked] for engine in served.engines]
            assert sorted(ids.count(session) for ids in asked) == [0, 4]


async def test_an_engines_own_errors_pass_untouched() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine]) as served, client_of(served) as client:
        for status in (400, 422, 500):
            engine.faults.status = status
            for stream in (False, True):
                answer = await client.post(CHAT, json=chat_body(stream=stream))
                assert answer.status_code == status
                assert answer.json()["error"]["code"] == "lookalike"
        assert served.servers.fleet.num_up == 1
        engine.faults.status = None
        assert (await client.post(CHAT, content=b"{")).status_code == 400
        assert (await client.post(CHAT, content=b"[]")).status_code == 400


@pytest.mark.parametrize("policy", ["panjiu", "home_for_life", "round_robin"])
async def test_a_busy_engine_costs_another_try_elsewhere(policy: str) -> None:
    engines = two_engines()
    async with served_engines(engines, policy=policy) as served, client_of(served) as client:
        engines[0].faults.status = 503
        for number in range(4):
            answer = await client.post(CHAT, json=chat_body(session_id=f"s{number}"))
            assert answer.status_code == 200
        assert len(engines[1].asked) == 4
        engines[1].faults.status = 503
        answer = await client.post(CHAT, json=chat_body())
        assert answer.status_code == 503


async def test_a_dead_engine_is_left_out_and_comes_back() -> None:
    engines = two_engines()
    async with served_engines(engines) as served, client_of(served) as client:
        dead = served.running[0]
        port = int(dead.url.rsplit(":", 1)[1])
        await dead.stop()
        answers = [await client.post(CHAT, json=chat_body(session_id=f"s{n}")) for n in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        await until(lambda: served.servers.fleet.num_up == 1)
        assert any("is down" in notice for notice in served.notices)
        async with running_engine(LookalikeEngine(salt=3), port=port) as again:
            await until(lambda: served.servers.fleet.num_up == 2)
            await again.stop()
        await until(lambda: served.servers.fleet.num_up == 1)


async def test_without_any_engine_the_answer_is_503_at_once() -> None:
    async with served_engines([LookalikeEngine()]) as served, client_of(served) as client:
        assert (await client.get("/ready")).status_code == 200
        served.engines[0].faults.unhealthy = True
        await until(lambda: served.servers.fleet.num_up == 0)
        answer = await client.post(CHAT, json=chat_body())
        assert answer.status_code == 503
        assert "no engine is up" in answer.json()["error"]["message"]
        assert answer.headers["retry-after"]
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/health")).status_code == 200  # the gateway lives
        served.engines[0].faults.unhealthy = False
        await until(lambda: served.servers.fleet.num_up == 1)
        assert (await client.post(CHAT, json=chat_body())).status_code == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_reply_that_breaks_off_goes_on_elsewhere_as_one(path: str) -> None:
    engines = two_engines()
    async with served_engines(engines) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.die_after_tokens = 5
        body = chat_body() if path == CHAT else {"prompt": "say it ", "max_tokens": 8}
        body["stream_options"] = {"include_usage": True}

        engines[0].dies = engines[1].dies = lambda: sum(len(e.asked) for e in engines) == 1
        data = await streamed(client, path, body)
        assert text_of(data).split() == [f"w{i}" for i in range(8)]
        events = events_of(data)
        assert len({(event["id"], event["created"]) for event in events}) == 1
        assert sum("role" in c.get("delta", {}) for e in events for c in e["choices"]) == (
            path == CHAT
        )
        usage = events[-1]["usage"]
        assert usage["completion_tokens"] == 8
        assert usage["total_tokens"] == usage["prompt_tokens"] + 8
        assert sorted(engine.asked[0]["max_tokens"] for engine in engines) == [3, 8]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_is_down_and_says_nothing_more_is_given_up(stream: bool) -> None:
    engines = two_engines()
    async with served_engines(engines) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.hang_after_tokens = 3

        async def fall_ill() -> None:
            await until(lambda: any(engine.asked for engine in engines))
            for engine in engines:
                engine.faults.unhealthy = bool(engine.asked)
                if not engine.asked:
                    engine.faults.hang_after_tokens = None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fall_ill)
            if stream:
                data = await streamed(client, CHAT, chat_body())
                assert text_of(data).split() == [f"w{i}" for i in range(8)]
            else:
                answer = await client.post(CHAT, json=chat_body())
                assert len(answer.json()["choices"][0]["message"]["content"].split()) == 8
        assert [len(engine.asked) for engine in engines] == [1, 1]


async def test_a_reply_that_cannot_go_on_ends_with_an_error() -> None:
    engines = two_engines()
    async with served_engines(engines) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.die_after_tokens = 3
        data = await streamed(client, CHAT, chat_body(stop=["x"]))
        *_, error, done, _ = data.split(b"\n\n")
        assert done == b"data: [DONE]"
        assert "lost" in json.loads(error.removeprefix(b"data: "))["error"]["message"]
        assert sum(len(engine.asked) for engine in engines) == 1


async def test_a_whole_answer_that_breaks_off_is_asked_for_again() -> None:
    engines = two_engines()
    async with served_engines(engines) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.token_s = 0.05
        async with anyio.create_task_group() as tasks:
            answers: list[httpx2.Response] = []

            async def ask() -> None:
                answers.append(await client.post(CHAT, json=chat_body()))

            tasks.start_soon(ask)
            await until(lambda: any(engine.asked for engine in engines))
            await next(one for one in served.running if one.engine.asked).stop()
        assert answers[0].status_code == 200
        assert sum(len(engine.asked) for engine in engines) == 2


async def test_a_client_that_leaves_at_done_has_had_a_whole_turn() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine]) as served, client_of(served) as client:
        for number in range(20):
            body = chat_body(stream=True, session_id=f"s{number}")
            async with client.stream("POST", CHAT, json=body) as response:
                async for data in response.aiter_bytes():
                    if b"[DONE]" in data:
                        break
            session = served.service.scheduler._sessions[SessionId(f"s{number}")]
            assert session.context_tokens == len(["<user>", "hello", "<assistant>"]) + 8
        assert engine.num_aborted == 0


async def test_a_client_that_leaves_has_the_engine_stop() -> None:
    engine = LookalikeEngine()
    engine.faults.token_s = 0.01
    async with served_engines([engine]) as served, client_of(served) as client:
        async with client.stream("POST", CHAT, json=chat_body(stream=True, max_tokens=5000)) as r:
            await anext(r.aiter_bytes())
        await until(lambda: engine.num_aborted == 1)
        assert engine.num_running == 0
        await until(lambda: not served.servers.fleet.slots[0].turns)


async def test_an_engine_is_not_read_while_the_client_takes_nothing() -> None:
    engine = LookalikeEngine(padding="x" * 2000)
    async with served_engines([engine]) as served, client_of(served) as client:
        body = chat_body(stream=True, max_tokens=100_000)
        async with client.stream("POST", CHAT, json=body) as response:
            await anext(response.aiter_bytes())
            sent = -1
            while sent != engine.num_sent:  # until all buffers on the way are full
                sent = engine.num_sent
                await anyio.sleep(0.3)
            assert sent < 50_000


async def test_a_drained_engine_ends_its_turns_and_gets_no_new_ones(tmp_path: Path) -> None:
    file = tmp_path / "engines"
    engines = two_engines()
    async with served_engines(engines, file=str(file)) as served, client_of(served) as client:
        for engine in engines:
            engine.faults.token_s = 0.02
        data: list[bytes] = []

        async def read() -> None:
            data.append(await streamed(client, CHAT, chat_body(max_tokens=20)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: sum(engine.num_running for engine in engines) == 1)
            busy = next(one for one in served.running if one.engine.num_running)
            idle = next(one for one in served.running if one is not busy)
            file.write_text(f"{idle.url}  # the other one drains\n")
            await until(lambda: served.servers.fleet.num_up == 1)
            for number in range(3):
                await client.post(CHAT, json=chat_body(session_id=f"s{number}", max_tokens=1))
        assert len(text_of(data[0]).split()) == 20
        assert len(idle.engine.asked) == 3
        await until(lambda: any("has drained" in notice for notice in served.notices))
        file.write_text(f'[[engine]]\nurl = "{idle.url}"\n[[engine]]\nurl = "{busy.url}"\n')
        await until(lambda: served.servers.fleet.num_up == 2)


async def test_an_engine_without_a_slot_gets_that_of_one_that_leaves(tmp_path: Path) -> None:
    file = tmp_path / "engines"
    engines = [LookalikeEngine(salt=n) for n in range(5)]
    async with served_engines(engines, file=str(file), wait_for=4) as served:
        up = {slot.address.url for slot in served.servers.fleet.up() if slot.address}
        left_out = next(one.url for one in served.running if one.url not in up)
        stay = [*list(up)[1:], left_out]
        file.write_text("\n".join(stay))

        def all_stay() -> bool:
            slots = served.servers.fleet.up()
            return {slot.address.url for slot in slots if slot.address} == set(stay)

        await until(all_stay)


async def test_an_engine_with_another_model_is_left_out() -> None:
    engines = [LookalikeEngine(), LookalikeEngine(model="another")]
    async with served_engines(engines, wait_for=1) as served, client_of(served) as client:
        await until(lambda: any("left out" in notice for notice in served.notices))
        first = served.servers.fleet.up()[0].address
        assert first is not None
        model = served.engine_of(first.url).model
        for number in range(3):
            body = chat_body(session_id=str(number), model=model)
            assert (await client.post(CHAT, json=body)).status_code == 200


async def test_the_schedulers_estimate_of_a_prompt_follows_what_the_engine_counts() -> None:
    engine = LookalikeEngine()
    async with served_engines([engine]) as served, client_of(served) as client:
        messages: list[dict[str, Any]] = [{"role": "user", "content": "some words " * 200}]
        exact = 0
        for _ in range(3):
            answer = await client.post(
                CHAT, json={"messages": messages, "max_tokens": 8, "session_id": "a"}
            )
            messages.append(answer.json()["choices"][0]["message"])
            messages.append({"role": "user", "content": "more words " * 20})
            exact = answer.json()["usage"]["prompt_tokens"]
        session = served.service.scheduler._sessions["a"]  # type: ignore[index]
        assert session.context_tokens == exact + 8
        assert session.home == ReplicaId(0)
