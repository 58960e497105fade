"""``/v1/completions`` as OpenAI's client and load generators see it."""

import json
from typing import Any

import openai
import pytest

from tests.fake_runner import FakeRunner, send
from tests.served_rack import MODEL
from tests.speaking_clients import app_of, openai_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_text_goes_on_for_sixteen_tokens_unless_more_are_asked_for() -> None:
    runner = FakeRunner()
    async with openai_of(app_of(runner)) as client:
        answer = await client.completions.create(
            model=MODEL, prompt="def main():", extra_body={"ignore_eos": True}
        )
        longer = await client.completions.create(
            model=MODEL, prompt="def main():", max_tokens=40, extra_body={"ignore_eos": True}
        )
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert longer.usage is not None
    assert (answer.usage.completion_tokens, longer.usage.completion_tokens) == (16, 40)
    assert answer.choices[0].finish_reason == "length"
    assert longer.choices[0].text.startswith(answer.choices[0].text)
    assert answer.usage.prompt_tokens == runner.requests[0].num_prompt_tokens == 4


async def test_a_stream_says_the_same_with_usage_where_it_is_asked_for() -> None:
    async with openai_of(app_of()) as client:
        whole = await client.completions.create(model=MODEL, prompt="a b", max_tokens=30)
        chunks = [c async for c in await client.completions.create(
            model=MODEL, prompt="a b", max_tokens=30, stream=True,
            stream_options={"include_usage": True},
        )]  # fmt: skip
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_times_n_are_choices_in_order(stream: bool) -> None:
    runner = FakeRunner()
    texts = [""] * 4
    async with openai_of(app_of(runner)) as client:
        arguments: Any = {"model": MODEL, "prompt": ["one", "two"], "n": 2, "max_tokens": 8}
        answer: Any = await client.completions.create(**arguments, stream=stream)
        if stream:
            async for chunk in answer:
                for choice in chunk.choices:
                    texts[choice.index] += choice.text
        else:
            texts = [choice.text for choice in answer.choices]
            assert answer.usage.prompt_tokens == 2, "each prompt once"
    assert len(set(texts)) == 4
    assert len({request.session_id for request in runner.requests}) == 2
    assert runner.num_open == 0


async def test_token_ids_are_the_text_they_stand_for() -> None:
    runner = FakeRunner()
    app = app_of(runner)
    text = "word " * 200
    cut = (await send(app, json.dumps({"prompt": text}).encode(), "/tokenize")).json()
    async with openai_of(app) as client:
        await client.completions.create(model=MODEL, prompt=text)
        await client.completions.create(model=MODEL, prompt=cut["tokens"])
        await client.completions.create(model=MODEL, prompt=[cut["tokens"], cut["tokens"][:50]])
    as_text, as_tokens, listed, shorter = runner.requests
    num_full = cut["count"] // runner.block_size_tokens
    assert as_text.num_prompt_tokens == as_tokens.num_prompt_tokens == cut["count"]
    assert as_text.block_hashes[:num_full] == as_tokens.block_hashes[:num_full]
    assert listed.num_prompt_tokens == cut["count"]
    assert shorter.num_prompt_tokens == 50


async def test_a_text_that_goes_on_with_an_answer_is_the_same_session() -> None:
    runner = FakeRunner()
    async with openai_of(app_of(runner)) as client:
        prompt = "Once upon a time " * 10
        for _ in range(3):
            answer = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=60)
            prompt += answer.choices[0].text + " and then"
        await client.completions.create(model=MODEL, prompt="Once upon a time " * 10)
    ids = [request.session_id for request in runner.requests]
    assert ids[0] == ids[1] == ids[2] != ids[3], "what begins alike is another one"


async def test_log_probabilities_come_in_the_old_form() -> None:
    async with openai_of(app_of()) as client:
        answer = await client.completions.create(
            model=MODEL, prompt="x", max_tokens=6, logprobs=2, extra_body={"ignore_eos": True}
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or ()) == answer.choices[0].text
    assert len(logprobs.token_logprobs or ()) == len(logprobs.top_logprobs or ()) == 6
    for offset, token in zip(logprobs.text_offset or (), logprobs.tokens or (), strict=True):
        assert answer.choices[0].text[offset:].startswith(token)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"echo": True}, "echo: the prompt is not sent back"),
        ({"suffix": "}"}, "suffix: nothing is filled in"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": ""}, "an empty prompt"),
        ({"prompt": []}, "this is empty"),
        ({"prompt": [-1]}, "token ids are from 0"),
        ({"prompt": ["x"] * 100, "n": 2}, "128 answers at the most"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 99}, "logprobs"),
    ],
)
async def test_what_is_not_served_is_refused_and_says_what_to_do(
    change: dict[str, Any], match: str
) -> None:
    async with openai_of(app_of()) as client:
        with pytest.raises(openai.BadRequestError, match=match):
            await client.completions.create(**{"model": MODEL, "prompt": "x", **change})


@pytest.mark.parametrize("body", [b"{}", b'{"prompt": 7}', b'{"prompt": {"a": 1}}'])
async def test_a_body_without_a_prompt_is_refused(body: bytes) -> None:
    answer = await send(app_of(), body, "/v1/completions")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"
