"""A journal in Redis: how it is named, how Redis must be set, and what goes wrong with one."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest
import redis
from hypothesis import given, settings

from agent_runtime.errors import ConfigError, JournalError
from agent_runtime.sdk import Agent, Runtime
from agent_runtime.sdk.redis_journal import server as redis_server_module
from agent_runtime.sdk.redis_journal.address import Address, Durability
from agent_runtime.sdk.redis_journal.server import FIRST_WITH_WAITAOF
from agent_runtime.sdk.redis_journal.store import RedisStore
from tests.conftest import PREFIXES
from tests.journal_places import in_virtual_time, live, says, states, telling
from tests.redis_journals import program
from tests.redis_server import RedisServer, running_redis, skip_without_redis
from tests.test_sdk import ScriptedServer
from tests.test_sdk_journal_model import LIVES, Model, check_stored
from tests.test_sdk_journal_model import live as live_model


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One for this test alone, which may spoil it."""
    skip_without_redis()
    with running_redis() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is gone stays so."""
    monkeypatch.setattr(redis_server_module, "PAUSES_S", (0.01,))


def has_waitaof(server: RedisServer) -> bool:
    version = str(server.client.info()["redis_version"]).split(".")[:2]
    return tuple(map(int, version)) >= FIRST_WITH_WAITAOF


def test_a_url_says_where_and_people_see_no_password() -> None:
    url = "rediss://me:secret@host:6380/2?prefix=fleet&durability=server&lease_s=2.5&protocol=3"
    expected = Address(
        "rediss://me:secret@host:6380/2?protocol=3",
        "rediss://host:6380/2?prefix=fleet",
        "fleet",
        Durability.SERVER,
        2.5,
    )
    assert Address.of(url) == expected
    assert Address.of("unix:///run/redis.sock?db=1").url == "unix:///run/redis.sock?db=1"
    assert Address.of("redis://host").base == "{panjiu}"


@pytest.mark.parametrize(
    ("url", "says_"),
    [
        ("redis://h/0?perfix=x", "perfix is none of the parameters .*prefix, durability, lease_s"),
        ("redis://h/0?prefix=", "prefix: '' can't begin the names of keys"),
        ("redis://h/0?prefix=a{b}", "prefix: 'a{b}' can't begin .*no braces"),
        ("redis://h/0?durability=disc", "durability: 'disc' is none; 'disk' waits"),
        ("redis://h/0?lease_s=soon", "lease_s: 'soon' is no number from 1 to 3600"),
        ("redis://h/0?lease_s=nan", "lease_s: 'nan' is no number"),
        ("redis://h:port/0", "redis://h:port/0: Port could not be cast.*write redis://HOST:PORT"),
        ("redis://h/0?socket_timeout=x", "Invalid value for 'socket_timeout'.*write redis://"),
    ],
)
def test_a_url_that_is_none_says_which_part(url: str, says_: str) -> None:
    with pytest.raises(ConfigError, match=says_):
        live(url, ScriptedServer(), telling("1"))


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if "redis_journal" in name or name == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'panjiu\[redis\]'"):
        live("redis://h/0", ScriptedServer(), telling("1"))
    with pytest.raises(ConfigError, match=r"pip install 'panjiu\[redis\]'"):
        states("redis://h/0")


def test_a_journal_that_is_not_there_says_so(redis_url: str) -> None:
    with pytest.raises(JournalError, match="there is none; no program has written to it"):
        states(redis_url)


def test_all_keys_are_the_prefix_s_and_readable(shared_redis: RedisServer, redis_url: str) -> None:
    before = set(shared_redis.client.keys("*"))
    live(redis_url, says("one"), telling("1"))
    prefix = "{" + redis_url.rpartition("=")[2] + "}"
    keys = set(shared_redis.client.keys("*")) - before
    assert keys == {
        f"{prefix}:{rest}"
        for rest in ("journal", "sessions", "id:s", "session:1", "step:1:0", "messages:1:0")
    }, "and what is nobody's any more is gone"
    (record,) = shared_redis.client.lrange(f"{prefix}:messages:1:0", 0, -1)
    assert json.loads(record)["message"] == {"role": "assistant", "content": "one"}


def test_the_version_of_another_panjiu_is_refused(
    shared_redis: RedisServer, redis_url: str
) -> None:
    live(redis_url, says("one"), telling("1"))
    shared_redis.client.hset("{" + redis_url.rpartition("=")[2] + "}:journal", "schema", "99")
    for act in (partial(live, redis_url, says(), telling("1")), partial(states, redis_url)):
        with pytest.raises(JournalError, match="version 99, and this Panjiu reads 1; use the"):
            act()


def set_unsaved(server: RedisServer) -> str:
    server.set(appendonly="no")
    return r"appendonly is off: .*CONFIG SET appendonly yes, .*or accept that with durability=ser"


def set_dropping(server: RedisServer) -> str:
    server.set(maxmemory_policy="allkeys-lru")
    return r"maxmemory-policy is allkeys-lru: it drops keys.*CONFIG SET maxmemory-policy noevic"


def set_late(server: RedisServer) -> str:
    server.set(appendfsync="everysec")
    return r"appendfsync is everysec, .*CONFIG SET appendfsync always, .*durability=server"


def set_never(server: RedisServer) -> str:
    server.set(appendfsync="no")
    return r"appendfsync is no.*loses the last seconds; .*CONFIG SET appendfsync always, "


def set_silent(server: RedisServer) -> str:
    server.kill()
    server.start("--rename-command", "CONFIG", "")
    return r"does not let us look whether appendfsync is 'always' .*see to that, or accept"


@pytest.mark.parametrize("unsafe", [set_unsaved, set_dropping, set_late, set_never, set_silent])
def test_a_redis_that_may_lose_things_is_refused_unless_that_is_wanted(
    own_redis: RedisServer, unsafe: Any
) -> None:
    if unsafe in (set_late, set_silent) and has_waitaof(own_redis):
        unsafe(own_redis)
        assert live(own_redis.place("safe"), says("one"), telling("1")) == ["one"], "it tells when"
        return
    with pytest.raises(JournalError, match=unsafe(own_redis)):
        live(own_redis.place("unsafe"), says("one"), telling("1"))
    accepted = own_redis.place("unsafe", "durability=server")
    assert live(accepted, says("one"), telling("1")) == ["one"]


def test_what_is_said_is_on_the_disk(own_redis: RedisServer) -> None:
    if has_waitaof(own_redis):
        own_redis.set(appendfsync="everysec")

    async def told(runtime: Runtime) -> None:
        async with runtime.session(Agent("a"), session_id="s") as session:
            await session.run("1")
            own_redis.kill()
            own_redis.start()
            assert states(own_redis.place("p")) == [("s", "running", ["running"])]
            await session.run("2")

    live(own_redis.place("p"), says("one", "two"), told)
    assert states(own_redis.place("p")) == [("s", "closed", ["ended", "ended"])]


def fill(server: RedisServer) -> str:
    server.set(maxmemory="1")
    return "Redis is full; raise its maxmemory"


def make_replica(server: RedisServer) -> str:
    server.client.replicaof("127.0.0.1", "1")
    return "it is a replica, which can't be written; name the primary"


def lose(server: RedisServer) -> str:
    server.kill()
    return "Redis can't be reached; start it, or look at the network"


def forget(server: RedisServer) -> str:
    server.client.flushall()
    return "has lost its lease: .*or Redis lost what it had"


def forget_the_last(server: RedisServer) -> str:
    (place,) = server.client.keys("*:owner:*")
    server.client.hincrby(place, "batches", -1)
    return "Redis lost what it had said to have written, .*set 'appendonly yes'"


def lock(server: RedisServer) -> str:
    server.drop_connections()
    server.set(requirepass="secret")
    return "Redis wants a password; name it"


def forbid(server: RedisServer) -> str:
    server.client.execute_command("ACL", "SETUSER", "default", "-evalsha")
    return "the user may not do that"


@pytest.mark.parametrize(
    "spoil",
    [fill, make_replica, lose, forget, forget_the_last, lock, forbid],
    ids=lambda f: f.__name__,
)
@pytest.mark.usefixtures("impatient")
def test_a_redis_that_fails_ends_runs_and_nothing_is_written_after_it(
    own_redis: RedisServer, spoil: Any
) -> None:
    fixes: list[str] = []

    async def main(runtime: Runtime) -> None:
        async with runtime.session(Agent("a"), session_id="s") as session:
            await session.run("1")
            await anyio.sleep(1)  # what nobody waits for is written, too
            fixes.append(spoil(own_redis))
            with pytest.raises(JournalError, match=fixes[0]):
                await session.run("2")
            own_redis.recover()
            with pytest.raises(JournalError, match=fixes[0]):
                await session.run("3")

    url = own_redis.place("p")
    with pytest.raises(JournalError) as raised:
        live(url, says("one", "two"), main)
    assert str(raised.value).startswith(f"journal {Address.of(url).name}: ")
    if spoil is forget:
        with pytest.raises(JournalError, match="there is none"):
            states(url)
        return
    assert states(url) == [("s", "waiting", ["ended"])]
    assert live(url, says("2"), telling("1", "2")) == ["one", "2"]


@pytest.mark.parametrize(
    ("prepare", "more", "says_"),
    [
        (("SET", "{p}:journal", "mine"), (), "the keys are another program's; take another"),
        (("PING",), ("db=99",), "Redis has fewer databases; name another one"),
        (("CONFIG", "SET", "requirepass", "x"), (), "Redis wants a password"),
        (("CONFIG", "SET", "requirepass", "x"), ("password=y",), "does not know this user or pas"),
    ],
)
def test_a_redis_that_can_not_be_used_says_why(
    own_redis: RedisServer, prepare: Any, more: Any, says_: str
) -> None:
    own_redis.client.execute_command(*prepare)
    with pytest.raises(JournalError, match=says_):
        live(own_redis.place("p", *more), says("one"), telling("1"))


@pytest.mark.usefixtures("impatient")
def test_a_redis_that_is_not_there_says_so() -> None:
    with pytest.raises(JournalError, match=r"redis://127.0.0.1:1/0: .*Redis can't be reached"):
        live("redis://127.0.0.1:1/0", says("one"), telling("1"))


def test_a_node_of_a_cluster_has_a_whole_journal() -> None:
    skip_without_redis()
    with running_redis("--cluster-enabled", "yes") as server:
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        server.wait_for("cluster_state:ok", "CLUSTER", "INFO")
        assert live(server.place("p"), says("one"), telling("1")) == ["one"]
        assert live(server.place("p"), says("two"), telling("1", "2")) == ["one", "two"]


def test_connections_that_break_do_no_harm(own_redis: RedisServer) -> None:
    async def told(runtime: Runtime) -> list[str]:
        async with runtime.session(Agent("a"), session_id="s") as session:
            texts = []
            for text in ("1", "2", "3"):
                texts.append((await session.run(text)).text)
                own_redis.client.execute_command(
                    "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
                )
                own_redis.client.script_flush()
            return texts

    assert live(own_redis.place("p"), says("a", "b", "c"), told) == ["a", "b", "c"]
    assert states(own_redis.place("p")) == [("s", "closed", ["ended"] * 3)]


@given(lives=LIVES)
@settings(max_examples=50)
def test_batches_whose_answers_got_lost_are_done_once(
    shared_redis: RedisServer, lives: list[list[Any]]
) -> None:
    sent = RedisStore._sent
    number = itertools.count()

    def losing(store: RedisStore, client: redis.Redis, words: Any) -> Any:
        answers = sent(store, client, words)
        if next(number) % 2 == 0:
            raise redis.ConnectionError("the answer got lost")
        return answers

    model: Model = {}
    place = shared_redis.place(f"test{next(PREFIXES)}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RedisStore, "_sent", losing)
        patched.setattr(redis_server_module, "PAUSES_S", (0.0,))
        for actions in lives:
            in_virtual_time(partial(live_model, place, model, actions))
            check_stored(place, model)


def test_what_comes_while_one_batch_is_under_way_shares_the_next(own_redis: RedisServer) -> None:
    async def one(number: int, runtime: Runtime) -> None:
        await telling("1", session_id=f"s{number}")(runtime)

    async def many(runtime: Runtime) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number, runtime)

    live(own_redis.place("p"), says(*["one"] * 100), many)
    calls = own_redis.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(states(own_redis.place("p"))) == 100
    assert calls < 50


def test_programs_with_prefixes_of_their_own_do_not_meet(shared_redis: RedisServer) -> None:
    names = [f"test{next(PREFIXES)}" for _ in range(2)]
    with program(shared_redis, names[0]) as one, program(shared_redis, names[1]) as other:
        assert one.opened("s").found is None
        assert other.opened("s").found is None
        assert len(one.store.owners()) == 1
