"""A real model's words at the emulated rack's timing, in virtual time; the model is an ASGI app."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.chat_client import ChatServer
from agent_runtime.clock import Clock
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import WireFormatError
from agent_runtime.event_stream import MAX_EVENT_BYTES, EventStreamParser
from agent_runtime.gateway.paced_chunks import Pacer
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import deployment

MODEL = "qwen3-8b"
WORDS = [f"word{number} " for number in range(12)]


class RealModel:
    """An OpenAI-compatible server that says ``WORDS``, ``itl_s`` apart; records what it is asked.

    Args:
        itl_s: Between chunks, and before the first.
        tokens_a_chunk: How many each chunk has, as its usage says; None to say nothing.
        status: Answered instead, if it is no 200.
        breaks_after: Drops the connection after so many tokens.
    """

    def __init__(
        self,
        itl_s: float = 0.0,
        *,
        status: int = 200,
        breaks_after: int | None = None,
        tokens_a_chunk: int | None = None,
    ) -> None:
        self.itl_s = itl_s
        self.tokens_a_chunk = tokens_a_chunk
        self.status = status
        self.breaks_after = breaks_after
        self.asked: list[dict[str, Any]] = []
        self.num_left_early = 0
        self.upstream: ChatUpstream
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.status != 200:
            error = {"message": "no such luck", "type": "mine", "code": "odd"}
            return JSONResponse({"error": error}, self.status)
        if body["stream"]:
            return StreamingResponse(self.events(), media_type="text/event-stream")
        await anyio.sleep(self.itl_s * len(WORDS))
        message = {"role": "assistant", "content": "".join(WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return JSONResponse({**HEAD, "choices": [choice], "usage": USAGE})

    async def events(self) -> AsyncIterator[bytes]:
        try:
            yield chunk({"role": "assistant", "content": ""})
            for number, word in enumerate(WORDS):
                if number == self.breaks_after:
                    raise httpx2.ReadError("the cable was pulled")  # as a client sees it
                await anyio.sleep(self.itl_s)
                used = None if self.tokens_a_chunk is None else self.tokens_a_chunk * (number + 1)
                yield chunk({"content": word}, num_used=used)
            yield chunk({}, "stop")
            yield event({**HEAD, "choices": [], "usage": USAGE})
            yield b"data: [DONE]\n\n"
        except anyio.get_cancelled_exc_class():
            self.num_left_early += 1
            raise


HEAD = {"id": "real", "object": "chat.completion.chunk", "created": 0, "model": "real"}
USAGE = {"prompt_tokens": 700, "completion_tokens": 12, "total_tokens": 712}


def chunk(
    delta: dict[str, Any], finish_reason: str | None = None, num_used: int | None = None
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    usage = {} if num_used is None else {"usage": {"completion_tokens": num_used}}
    return event({**HEAD, "choices": [choice], **usage})


def event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\r\n\r\n".encode()


Program = Callable[[openai.AsyncOpenAI, EmulatedService], Awaitable[Any]]


def paced(model: RealModel, program: Program) -> Any:
    """Run a program against the paced endpoint before ``model``."""
    clock = VirtualClock()
    upstream = model.upstream = ChatUpstream(
        ChatServer("http://real/v1", model="the-real-one", api_key="secret"),
        transport=StreamingAsgiTransport(model.app),
    )
    service = EmulatedService(
        deployment(MODEL, num_replicas=2, block_size_tokens=16),
        ServiceOptions(Band.BASE, "panjiu", EngineLimits(), any_model_name=True),
        Clock(origin_s=0.0),
        upstream,
        epoch_s=lambda: 0.0,
    )

    async def main() -> Any:
        async with (
            upstream,
            httpx2.AsyncClient(transport=StreamingAsgiTransport(service.app), timeout=None) as http,
        ):
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
            )
            result = await program(client, service)
        service.rack.check_invariants()
        service.scheduler.check_invariants()
        assert service.rack.kv_active_ratio() == 0
        return result

    def loop() -> VirtualTimeLoop:
        return VirtualTimeLoop(clock=clock, world=service.rack)

    return anyio.run(main, backend_options={"loop_factory": loop})


ASK: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "say it " + "word " * 600}],
    "max_tokens": 50,
}


async def streamed(client: openai.AsyncOpenAI, _: EmulatedService) -> list[tuple[float, str]]:
    stream = await client.chat.completions.create(**ASK, stream=True)
    return [(anyio.current_time(), part.choices[0].delta.content or "") async for part in stream]


def test_a_fast_model_s_words_come_when_the_rack_would_have_generated_them() -> None:
    model = RealModel()
    parts = paced(model, streamed)
    assert "".join(text for _, text in parts) == "".join(WORDS)
    times_s = [at_s for at_s, text in parts if text]
    assert 0.02 < times_s[0] < 0.2
    gaps_s = [after - before for before, after in pairwise(times_s)]
    assert min(gaps_s) > 0.003, "a step of the rack lies between two tokens"
    assert max(gaps_s) == pytest.approx(min(gaps_s), rel=0.02)
    assert parts[0][0] == times_s[0], "the role comes with the first token, not before"
    asked = model.asked[0]
    assert asked["model"] == "the-real-one"
    assert asked["messages"] == ASK["messages"]


def test_chunks_of_several_tokens_wait_for_all_of_them() -> None:
    decoding_s = []
    for tokens_a_chunk in (1, 3):
        parts = paced(RealModel(tokens_a_chunk=tokens_a_chunk), streamed)
        times_s = [at_s for at_s, text in parts if text]
        decoding_s.append(times_s[-1] - times_s[0])
    assert decoding_s[1] == pytest.approx(3 * decoding_s[0], rel=0.02)


def test_a_slow_model_is_late_and_is_told_of() -> None:
    model = RealModel(itl_s=0.5)

    parts = paced(model, streamed)
    lateness = model.upstream.lateness
    times_s = [at_s for at_s, text in parts if text]
    assert times_s == pytest.approx([0.5 * number for number in range(1, 13)])
    assert (lateness.num_turns, lateness.num_late) == (1, 1)
    assert lateness.worst_s > 3


def test_a_whole_answer_takes_as_long_as_the_rack_would_take() -> None:
    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> Any:
        answers = []
        messages = list(ASK["messages"])
        for _turn in range(2):
            began_s = anyio.current_time()
            answer = await client.chat.completions.create(**{**ASK, "messages": messages})
            answers.append((answer, anyio.current_time() - began_s))
            messages += [
                {"role": "assistant", "content": answer.choices[0].message.content},
                {"role": "user", "content": "again"},
            ]
        return answers

    (first, first_s), (second, second_s) = paced(RealModel(), program)
    assert first.choices[0].message.content == "".join(WORDS)
    assert first.usage.completion_tokens == 12
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert 0.05 < second_s < first_s, "the session's KV is found without a key"
    assert second.usage.prompt_tokens_details.cached_tokens > 590


def test_usage_goes_to_those_who_ask_for_it() -> None:
    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> Any:
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(**ASK, stream=True, stream_options=options)
        return [part.usage async for part in stream if not part.choices]

    (usage,) = paced(RealModel(), program)
    assert usage.completion_tokens == 12


@pytest.mark.parametrize("stream", [True, False])
def test_the_real_server_s_refusal_is_passed_on_as_it_is(stream: bool) -> None:
    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> Any:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ASK, stream=stream)
        return caught.value

    error = paced(RealModel(status=429), program)
    assert error.body == {"message": "no such luck", "type": "mine", "code": "odd"}


def test_a_real_server_that_breaks_off_ends_the_stream_with_an_error() -> None:
    heard = []

    async def listen(client: openai.AsyncOpenAI) -> None:
        async for part in await client.chat.completions.create(**ASK, stream=True):
            heard.append(part.choices[0].delta.content or "")  # noqa: PERF401 - until it breaks off

    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> None:
        with pytest.raises(openai.APIError, match="the server http://real/v1 failed"):
            await listen(client)

    paced(RealModel(breaks_after=4, itl_s=0.1), program)
    assert [word for word in heard if word] == WORDS[: len(heard) - 1]
    assert len(heard) > 2


def test_a_client_that_leaves_ends_the_turn_on_both_servers() -> None:
    model = RealModel(itl_s=1.0)

    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> None:
        stream = await client.chat.completions.create(**ASK, stream=True)
        async for part in stream:
            if part.choices[0].delta.content:
                break
        await stream.close()
        await anyio.sleep(0.5)

    paced(model, program)
    assert model.num_left_early == 1


def test_several_choices_are_refused() -> None:
    async def program(client: openai.AsyncOpenAI, _: EmulatedService) -> None:
        with pytest.raises(openai.BadRequestError, match="one choice"):
            await client.chat.completions.create(**ASK, n=2)

    paced(RealModel(), program)


@given(st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=40))
def test_chunks_leave_in_order_and_never_before_the_rack_has_their_tokens(
    moves: list[int | None],
) -> None:
    pacer, num_added, num_released = Pacer(), 0, 0
    added: list[int] = []
    taken: list[int] = []
    for now_s, move in enumerate(moves):
        if move is None:
            num_released += 2
            pacer.release(2, now_s)
        else:
            num_added += move
            added.append(num_added)
            pacer.add({"tokens": num_added}, move, now_s)
        while (chunk := pacer.next_chunk()) is not None:
            taken.append(chunk["tokens"])
        assert taken == added[: len(taken)]
        assert all(tokens <= num_released for tokens in taken)
        held = added[len(taken) :]
        assert not held or held[0] > num_released or num_released == 0
    pacer.end()
    while (chunk := pacer.next_chunk()) is not None:
        taken.append(chunk["tokens"])
    assert taken == added


EVENTS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=6
)


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(1, 9), max_size=80))
def test_events_are_the_same_however_the_bytes_are_cut(
    datas: list[str], end: str, sizes: list[int]
) -> None:
    text = (
        "".join(f": note{end}event: x{end}data: {data}{end}{end}" for data in datas) + "data: rest"
    )
    raw, parser, heard = text.encode(), EventStreamParser(), []
    for size in [*sizes, len(raw)]:
        heard += parser.feed(raw[:size])
        raw = raw[size:]
    assert [data.decode() for data in heard] == datas


def test_data_lines_of_one_event_are_joined_and_endless_events_refused() -> None:
    assert EventStreamParser().feed(b"data: a\ndata:b\ndata\n\nid: 1\n\n") == [b"a\nb\n"]
    parser = EventStreamParser()
    with pytest.raises(WireFormatError, match="more than"):
        parser.feed(b"data: " + bytes(MAX_EVENT_BYTES))
