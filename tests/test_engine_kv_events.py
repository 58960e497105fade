"""What is known of engines' KV from their events is what they have, whatever gets lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.backends.kv_event_wire import AllCleared, BlockRemoved, BlockStored, wire_events
from agent_runtime.backends.vllm_servers.event_order import Arrival, EventOrder
from agent_runtime.backends.vllm_servers.kv_residency import KvResidency, ResidencyStats
from agent_runtime.backends.vllm_servers.session_chains import ChainIndex, SessionChain
from agent_runtime.errors import WireFormatError
from hw_model.engine.kv_events import KvEventLog
from scheduler.ids import ReplicaId, SessionId
from tests.engines import engine, request
from tests.look_alike_rack import BLOCK as EMULATED_BLOCK
from tests.look_alike_rack import served_look_alikes
from tests.lookalike_engine import LookalikeEngine
from tests.served_engines import (
    ServedEngines,
    chat_body,
    gateway_before,
    served_engines,
    streamed,
    until,
)
from tests.word_kv import BLOCK, chat_words

R0, R1 = ReplicaId(0), ReplicaId(1)
CHAT = "/v1/chat/completions"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stored(
    hashes: list[Any], parent: Any, tokens: list[int], session: str | None = None, **more: Any
) -> BlockStored:
    event = BlockStored(hashes, parent, tokens, BLOCK, None, "GPU", None, session_id=session)
    return msgspec.structs.replace(event, **more)


def test_a_block_is_the_same_on_every_engine_whatever_its_hash_there() -> None:
    residency = KvResidency(2)
    residency.apply(R0, [stored([1, 2], None, list(range(8)), "a")])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 8
    assert residency.num_cached_tokens(R1, SessionId("a")) == 0
    residency.apply(R1, [stored([b"x"], None, list(range(4)), "b")])
    assert residency.num_cached_tokens(R1, SessionId("a")) == 4
    residency.apply(R1, [stored([b"y"], b"x", [9, 9, 9, 9], "b")])
    assert residency.num_cached_tokens(R1, SessionId("a")) == 4
    assert residency.num_cached_tokens(R0, SessionId("b")) == 4
    residency.apply(R0, [AllCleared()])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 0
    residency.forget(SessionId("a"))
    residency.forget(SessionId("b"))
    residency.clear(R1)
    residency.check_invariants()
    assert residency.stats().num_blocks == 0


def test_a_prefix_ends_at_the_first_block_that_is_gone_and_host_memory_goes_on() -> None:
    residency = KvResidency(1)
    residency.apply(R0, [stored([1, 2, 3], None, list(range(12)), "a")])
    residency.apply(R0, [stored([2], 1, list(range(4, 8)), "a", medium="CPU")])
    residency.apply(R0, [stored([3], 2, list(range(8, 12)), "a")])  # a second copy
    residency.apply(R0, [BlockRemoved([2], "GPU")])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 4
    assert residency.num_host_tokens(R0, SessionId("a")) == 4
    residency.apply(R0, [stored([2], 1, list(range(4, 8)))])
    residency.apply(R0, [BlockRemoved([3], "GPU")])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 12
    residency.apply(R0, [BlockRemoved([3], "GPU")])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 8
    residency.check_invariants()


def test_what_does_not_make_a_prefix_is_passed_over() -> None:
    residency = KvResidency(1)
    whole = {"group_idx": 1, "kv_cache_spec_kind": "full_attention"}
    window = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    residency.apply(R0, [stored([1], None, [1, 2, 3, 4], "a", **whole)])
    residency.apply(R0, [stored([2], 1, [5, 6, 7, 8], "a", **window)])
    residency.apply(R0, [stored([2], 1, [5, 6, 7, 8], "a", locality="REMOTE")])
    residency.apply(R0, [BlockRemoved([1], "GPU", group_idx=0)])
    assert residency.num_cached_tokens(R0, SessionId("a")) == 4
    residency.apply(R0, [stored([7], 99, [5, 6, 7, 8], "a", **whole)])
    assert residency.stats().num_unplaced == 1
    with pytest.raises(WireFormatError, match="came with 3 tokens"):
        residency.apply(R0, [stored([3], None, [1, 2, 3], "a")])


def test_a_session_nobody_will_forget_is_known_for_as_long_as_an_engine_has_of_it() -> None:
    residency = KvResidency(2, {SessionId("ours")}.__contains__)
    for replica in (R0, R1):
        residency.apply(replica, [stored([1, 2, 3], None, list(range(12)), "late")])
        residency.apply(replica, [stored([4], 2, [7, 7, 7, 7], "ours")])
    residency.apply(R0, [BlockRemoved([3], "GPU")])
    assert residency.num_cached_tokens(R0, SessionId("late")) == 8
    assert residency.num_cached_tokens(R1, SessionId("late")) == 12
    residency.apply(R1, [BlockRemoved([3, 4], "GPU")])
    assert residency.num_cached_tokens(R1, SessionId("late")) == 8
    residency.clear(R0)
    residency.clear(R1)
    residency.check_invariants()
    assert residency.knows(SessionId("ours"))
    assert residency.num_cached_tokens(R1, SessionId("late")) == 0
    residency.forget(SessionId("ours"))
    assert residency.stats() == ResidencyStats(0, 0, 0)


def test_who_never_came_this_way_is_forgotten_with_its_blocks() -> None:
    residency = KvResidency(1, lambda _: False)
    residency.apply(R0, [stored([1, 2, 3], None, list(range(12)), "a")])
    residency.apply(R0, [stored([9], 2, [5, 5, 5, 5], "b")])
    residency.apply(R0, [BlockRemoved([3, 9, 2, 1], "GPU")])
    residency.check_invariants()
    assert residency.stats() == ResidencyStats(0, 0, 0)


growing = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 2)), max_size=25)


@given(growing, st.integers(12, 40))
def test_residency_is_what_the_emulated_engine_has(
    turns: list[tuple[int, int, int]], num_blocks: int
) -> None:
    """Sessions grow turn by turn, share a trunk, and push each other out of a small KV."""
    log, residency = KvEventLog(), KvResidency(1)
    core = engine(num_blocks, log=log)
    contexts: dict[int, list[int]] = {}
    lives = [0] * 5
    now_s = 0.0
    for number, (agent, growth, trunk) in enumerate(turns):
        who = agent + 5 * lives[agent]
        hashes = contexts.setdefault(who, list(range(trunk)))
        hashes += [(who + 1) * 1000 + len(hashes) + i for i in range(growth)]
        if len(hashes) + 2 > num_blocks:
            lives[agent] += 1  # too long: it begins anew
            del contexts[who]
            continue
        core.add(request(str(number), len(hashes) * BLOCK + 1, 2, hashes), now_s)
        while core.next_event_s is not None:
            now_s = core.next_event_s
            core.advance(now_s)
        for event in wire_events(log.take(), block_size_tokens=BLOCK):
            whose = isinstance(event, BlockStored)
            named = msgspec.structs.replace(event, session_id=f"s{who}") if whose else event
            residency.apply(R0, [named])
        residency.check_invariants()
        for other, chain in contexts.items():
            if residency.knows(SessionId(f"s{other}")):
                truth = core.residency.num_cached(chain) * BLOCK
                assert residency.num_cached_tokens(R0, SessionId(f"s{other}")) == truth


def test_a_chain_is_its_sessions_or_the_one_that_begins_most_alike() -> None:
    index = ChainIndex()
    index.remember(SessionChain(SessionId("a"), (1, 2, 3, 4, 5)))
    own = index.likeness(SessionChain(SessionId("a"), (1, 2, 3, 4, 5, 6)))
    assert own == (SessionId("a"), 5, True)
    rewound = index.likeness(SessionChain(SessionId("a"), (1, 2, 9)))
    assert rewound == (SessionId("a"), 2, False)
    sibling = index.likeness(SessionChain(SessionId("b"), (1, 2, 3, 8)))
    assert sibling == (SessionId("a"), 3, False)
    assert index.likeness(SessionChain(SessionId("b"), (7, 8))) is None
    cut = SessionChain(SessionId("a"), (1, 2, 3))[:2]
    assert isinstance(cut, SessionChain)
    assert index.likeness(cut) == (SessionId("a"), 2, False)
    index.forget(SessionId("a"))
    assert index.likeness(SessionChain(SessionId("b"), (1, 2, 3, 8))) is None


def test_the_order_of_batches_tells_gaps_repetitions_and_restarts() -> None:
    order = EventOrder()
    assert order.arrival(5, 1.0) is Arrival.NEXT
    order.took(5, 1.0)
    assert order.arrival(6, 1.1) is Arrival.NEXT
    assert order.arrival(8, 1.2) is Arrival.AFTER_A_GAP
    assert order.arrival(5, 1.0) is Arrival.OLD
    assert order.arrival(0, 2.0) is Arrival.RESTARTED


def test_a_number_that_was_another_batchs_tells_a_restart_until_the_engine_confirmed_it() -> None:
    order = EventOrder()
    for sequence in range(5):
        order.took(sequence, float(sequence))
    assert order.arrival(2, 2.0) is Arrival.OLD
    assert order.arrival(2, 2.5) is Arrival.RESTARTED
    order.confirmed()
    assert order.unconfirmed == {4: 4.0}
    assert order.arrival(2, 2.5) is Arrival.OLD
    assert order.arrival(4, 3.5) is Arrival.RESTARTED
    order.restart()
    assert order.unconfirmed == {}
    assert order.arrival(0, 1.0) is Arrival.NEXT


async def talk(
    served: ServedEngines, client: httpx2.AsyncClient, key: str, num_turns: int
) -> list[dict[str, Any]]:
    """Have a session take turns; return its messages."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"begin {key} please " * 5}]
    for turn in range(num_turns):
        body = {"messages": messages, "max_tokens": 7, "session_id": key}
        answer = (await client.post(CHAT, json=body)).json()
        messages.append(answer["choices"][0]["message"])
        messages.append({"role": "user", "content": f"go on {turn}"})
    return messages


def residency_is_true(served: ServedEngines, contexts: dict[str, list[dict[str, Any]]]) -> bool:
    """Return whether what is known of every session on every engine is so."""
    residency = served.servers.probe.residency
    for slot in served.servers.fleet.up():
        assert slot.address is not None
        truth = served.engine_of(slot.address.url)
        for key, messages in contexts.items():
            known = residency.num_cached_tokens(slot.replica_id, SessionId(key))
            if known != truth.kv.num_there([*chat_words(messages[:-1])]):
                return False
    return True


@pytest.mark.anyio
@pytest.mark.parametrize("num_blocks", [1000, 40])
async def test_live_events_tell_what_engines_have_with_room_and_without(num_blocks: int) -> None:
    engines = [LookalikeEngine(salt=n, num_blocks=num_blocks) for n in (1, 2)]
    async with (
        served_engines(engines, events=True, policy="home_for_life") as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        assert served.service.capabilities().has_events
        contexts = {f"s{n}": await talk(served, client, f"s{n}", 4) for n in range(4)}
        await until(lambda: residency_is_true(served, contexts))


@pytest.mark.anyio
async def test_events_from_before_the_gateway_came_are_asked_for() -> None:
    first = LookalikeEngine(salt=1)
    first.kv.compute(chat_words([{"role": "user", "content": "a b c d e f g h"}]), "early")
    async with served_engines([first], events=True) as served:
        residency = served.servers.probe.residency
        await until(lambda: residency.num_cached_tokens(R0, SessionId("early")) == 8)


@pytest.mark.anyio
async def test_events_that_get_lost_are_asked_for_or_all_is_learned_anew() -> None:
    lookalike = LookalikeEngine(salt=1)
    async with (
        served_engines([lookalike], events=True) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        residency = served.servers.probe.residency
        contexts = {"a": await talk(served, client, "a", 2)}
        await until(lambda: residency_is_true(served, contexts))
        lookalike.lost = set(range(len(lookalike.sent_events), len(lookalike.sent_events) + 3))
        contexts["b"] = await talk(served, client, "b", 3)
        await until(lambda: residency_is_true(served, contexts))
        assert not any("learned anew" in notice for notice in served.notices)
        num_sent = len(lookalike.sent_events)
        lookalike.lost = set(range(num_sent, num_sent + 2))
        lookalike.kept_from = num_sent + 2
        await talk(served, client, "c", 2)
        await until(lambda: any("learned anew" in notice for notice in served.notices))
        assert residency.num_cached_tokens(R0, SessionId("a")) == 0
        contexts = {"d": await talk(served, client, "d", 2)}
        await until(lambda: residency_is_true(served, contexts))


@pytest.mark.anyio
async def test_events_that_cannot_be_had_are_done_without() -> None:
    lookalike = LookalikeEngine(salt=1)
    lookalike.ports = "nowhere", "at-all"
    async with (
        served_engines([lookalike]) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        assert not served.service.capabilities().has_events
        assert any("not used" in notice for notice in served.notices)
        assert len(await talk(served, client, "a", 2)) == 5


@pytest.mark.anyio
async def test_a_batch_that_cannot_be_read_leaves_nothing_known_and_the_next_ones_are() -> None:
    lookalike = LookalikeEngine(salt=1)
    async with (
        served_engines([lookalike], events=True) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        contexts = {"a": await talk(served, client, "a", 2)}
        await until(lambda: residency_is_true(served, contexts))
        lookalike.publish([stored([1, 2], None, [1], "x")])
        await until(lambda: any("can't be read" in notice for notice in served.notices))
        contexts = {"b": await talk(served, client, "b", 2)}
        await until(lambda: residency_is_true(served, contexts))


@pytest.mark.anyio
async def test_a_new_session_goes_where_its_beginning_lies() -> None:
    engines = [LookalikeEngine(salt=n) for n in (1, 2)]
    trunk = {"role": "system", "content": "you are a careful agent " * 200}
    async with (
        served_engines(engines, events=True, policy="lmetric") as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        for number in range(4):
            body = chat_body(f"task {number}", session_id=f"s{number}")
            body["messages"].insert(0, trunk)
            await streamed(client, CHAT, body)
            await anyio.sleep(0.05)
        assert sorted(len(engine.asked) for engine in engines) == [0, 4]


def has_learned(residency: KvResidency, home: ReplicaId, session: SessionId, num: int) -> bool:
    return residency.num_cached_tokens(home, session) == num


@pytest.mark.anyio
async def test_what_is_known_of_emulated_engines_is_what_their_next_turns_find() -> None:
    async with (
        served_look_alikes(kv_events=True) as look_alikes,
        gateway_before(look_alikes.urls) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=20) as client,
    ):
        residency = served.servers.probe.residency
        for number in range(3):
            session = SessionId(f"agent-{number}")
            messages = [{"role": "user", "content": f"files of {number}: " + "some text " * 300}]
            known = 0
            for _ in range(4):
                body = {"messages": messages, "session_id": session}
                answer = (await client.post(CHAT, json=body)).json()
                usage = answer["usage"]
                assert usage["prompt_tokens_details"]["cached_tokens"] == known
                home = served.service.scheduler._sessions[session].home
                assert home is not None
                known = (usage["total_tokens"] - 1) // EMULATED_BLOCK * EMULATED_BLOCK
                await until(partial(has_learned, residency, home, session, known))
                messages += [answer["choices"][0]["message"], {"role": "user", "content": "go on"}]
