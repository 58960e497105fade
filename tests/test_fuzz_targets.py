"""What ``make fuzz`` feeds, without a fuzzer: seeds, seeds with other bytes in them, any bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.relay.body_fields import read_chat_fields, read_fields
from agent_runtime.gateway.relay.chat_apis import ChatApi
from agent_runtime.prompts.chat_prompt import PromptMemory
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_lead_to_no_errors_but_those_that_are_told_of(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].feed(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=st.data())
def test_bytes_that_are_wrong_do_so_neither(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    seed = bytearray(data.draw(st.sampled_from(target.seeds)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(seed) - 1))
        seed[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        if not seed:
            break
    target.feed(bytes(seed))
    target.feed(data.draw(st.binary(max_size=64)))


def test_text_that_is_no_utf_8_is_the_clients_mistake() -> None:
    with pytest.raises(InvalidRequestError, match="the body is not JSON"):
        read_fields(b'{"model":"\xff"}')
    with pytest.raises(InvalidRequestError, match="the body is not JSON"):
        read_chat_fields(b'{"model":"\xff"}')
    prompt = ChatApi().prompt(read_chat_fields(b'{"messages":[{"role":"\xff"}]}'))
    with pytest.raises(InvalidRequestError, match="the body is not JSON"):
        prompt.open_in(PromptMemory(16), None, 1000)
