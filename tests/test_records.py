"""Values that outlive the process, in a file and in a real Redis."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import ConfigError, JournalError
from agent_runtime.records import Records, open_records
from agent_runtime.records import records as records_module
from agent_runtime.records.record_store import Change, RecordStore
from agent_runtime.records.redis_store import open_redis_store
from agent_runtime.records.sqlite_store import open_sqlite_store
from tests.journal_places import in_virtual_time
from tests.redis_server import RedisServer, needs_redis, running_redis

pytestmark = pytest.mark.anyio
NOW_S = 1_000.0
NAMES = st.text("ab/*?[\\é", min_size=1, max_size=3)
CHANGES = st.dictionaries(
    NAMES,
    st.builds(
        Change,
        st.booleans(),
        st.dictionaries(st.sampled_from(["x", "y"]), st.binary(max_size=3), max_size=2),
        st.just(60.0),
    ),
    max_size=4,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


PLACES = ["file", pytest.param("redis", marks=needs_redis)]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "records.db")
    server: RedisServer = request.getfixturevalue("redis")
    with open_redis_store(server.url) as store:
        store._client.flushall()
    return server.url


def opened(place: str) -> Callable[[], object]:
    return lambda: open_redis_store(place) if "://" in place else open_sqlite_store(Path(place))


def applied(state: dict[str, dict[str, bytes]], changes: Mapping[str, Change]) -> None:
    for name, change in changes.items():
        state[name] = change.applied(state.get(name, {}))


def check(store: RecordStore, state: Mapping[str, Mapping[str, bytes]], now_s: float) -> None:
    names = sorted({*state, "never"})
    assert store.read(names, now_s) == [dict(state.get(name, {})) for name in names]
    for prefix in ("", "a", "*", "[", "é/"):
        wanted = sorted(
            name for name, values in state.items() if values and prefix == name[: len(prefix)]
        )
        assert sorted(store.names(prefix, now_s)) == wanted


@given(batches=st.lists(CHANGES, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_file_is_as_a_dictionary(
    batches: Sequence[Mapping[str, Change]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("records") / "r.db"
    state: dict[str, dict[str, bytes]] = {}
    for changes in batches:
        with open_sqlite_store(path) as store:
            store.write(changes, NOW_S)
            applied(state, changes)
            check(store, state, NOW_S)
    with open_sqlite_store(path) as store:
        check(store, state, NOW_S + 59)
        check(store, {}, NOW_S + 61)
        store.write({"a": Change(values={"x": b"1"}, ttl_s=1.0)}, NOW_S + 61)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)


@needs_redis
@given(batches=st.lists(CHANGES, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_redis_is_as_a_dictionary(
    batches: Sequence[Mapping[str, Change]], redis: RedisServer
) -> None:
    state: dict[str, dict[str, bytes]] = {}
    with open_redis_store(redis.url) as store:
        store._client.flushall()
        for changes in batches:
            store.write(changes, NOW_S)
            applied(state, changes)
            check(store, state, NOW_S)
        kept = [key for key in store._client.keys("*") if store._client.pttl(key) < 0]
        assert kept == [], "they go by themselves"


@given(first=CHANGES, second=CHANGES)
def test_two_changes_are_one(first: Mapping[str, Change], second: Mapping[str, Change]) -> None:
    in_turn: dict[str, dict[str, bytes]] = {}
    applied(in_turn, first)
    applied(in_turn, second)
    both = dict(first)
    for name, change in second.items():
        both[name] = both[name].then(change) if name in both else change
    at_once: dict[str, dict[str, bytes]] = {}
    applied(at_once, both)
    assert at_once == in_turn


async def test_what_was_put_is_there_in_the_next_life(place: str) -> None:
    lives = []
    for number in range(3):
        async with open_records(place, print) as records:
            lives.append(records.life)
            assert await records.names("s/") == [f"s/{n}" for n in range(number)]
            records.put(f"s/{number}", {"v": b"%d" % number, "w": b""}, 60.0)
            (values,) = await records.read([f"s/{number}"])
            assert values == {"v": b"%d" % number, "w": b""}, "who asks sees what was put"
            await records.settled()
            records.drop("never")
    assert len(set(lives)) == 3
    async with open_records(place, print) as records:
        found = await records.read(["s/0", "s/1", "s/2", "s/3"])
        assert [values.get("v") for values in found] == [b"0", b"1", b"2", None]


class BrokenStore:
    """Fails as long as it is told to."""

    is_shared = False

    def __init__(self) -> None:
        self.fails = False
        self.cannot_be_read = False
        self.values: dict[str, dict[str, bytes]] = {}
        self.num_writes = 0

    def begin_life(self) -> int:
        return 1

    def write(self, changes: Mapping[str, Change], now_epoch_s: float) -> None:
        if self.fails:
            raise JournalError("the disk is full")
        self.num_writes += 1
        applied(self.values, changes)

    def read(self, groups: Sequence[str], now_epoch_s: float) -> list[dict[str, bytes]]:
        if self.cannot_be_read:
            raise JournalError("it can't be read")
        return [self.values.get(group, {}) for group in groups]

    def names(self, prefix: str, now_epoch_s: float) -> list[str]:
        return sorted(name for name, values in self.values.items() if values)

    def close(self) -> None:
        pass


async def test_a_store_that_fails_is_tried_again_and_nobody_stops_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records_module, "RETRY_S", 0.01)
    notices: list[str] = []
    store = BrokenStore()
    records = Records(store, notices.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(records.run)
        store.fails = True
        records.put("a", {"x": b"1"}, 60.0)
        with pytest.raises(JournalError, match="disk is full"):
            await records.settled()
        records.put("a", {"y": b"2"}, 60.0)
        records.put("b", {"x": b"3"}, 60.0)
        assert await records.read(["a", "b", "c"]) == [{"x": b"1", "y": b"2"}, {"x": b"3"}, {}]
        assert await records.names("b") == ["b"]
        records.drop("b")
        assert await records.read(["a", "b"]) == [{"x": b"1", "y": b"2"}, {}]
        assert await records.names("") == ["a"]
        records.put("b", {"x": b"3"}, 60.0)
        store.cannot_be_read = True
        for _ in range(2):
            with pytest.raises(JournalError, match="can't be read"):
                await records.read(["a"])
        store.fails = store.cannot_be_read = False
        with anyio.fail_after(10):
            while len(notices) < 2:
                await anyio.sleep(0.005)
        assert await records.read(["a", "b"]) == [{"x": b"1", "y": b"2"}, {"x": b"3"}]
        assert "disk is full" in notices[0]
        assert "works again" in notices[1]
        assert records.num_problems >= 1
        tasks.cancel_scope.cancel()


def test_nobody_waits_to_read_what_can_only_not_be_written() -> None:
    async def read_while_the_disk_is_full() -> None:
        store = BrokenStore()
        records = Records(store, lambda _: None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(records.run)
            store.fails = True
            records.put("a", {"x": b"1"}, 60.0)
            with pytest.raises(JournalError):
                await records.settled()
            begun_s = anyio.current_time()
            for _ in range(5):
                assert await records.read(["a"]) == [{"x": b"1"}]
            assert anyio.current_time() == begun_s
            tasks.cancel_scope.cancel()

    in_virtual_time(read_while_the_disk_is_full)


async def test_what_can_not_be_written_for_long_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "RETRY_S", 0.001)
    monkeypatch.setattr(records_module, "MAX_WAITING_BYTES", 10_000)
    store = BrokenStore()
    store.fails = True
    records = Records(store, lambda _: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(records.run)
        for number in range(100):
            records.put(f"g{number}", {"x": bytes(1000)}, 60.0)
            await anyio.sleep(0.001)
        store.fails = False
        with anyio.fail_after(10):
            while not store.num_writes:
                await anyio.sleep(0.001)
        await records.settled()
        tasks.cancel_scope.cancel()
    assert 0 < len(store.values) < 60
    assert "g99" in store.values, "the latest ones are kept"


async def test_a_file_has_one_gateway_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with open_records(str(path), print):
        with pytest.raises(JournalError, match="in use by process"):
            async with open_records(str(path), print):
                pass
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(JournalError, match="another program's database"):
        async with open_records(str(other), print):
            pass


@needs_redis
async def test_a_redis_that_is_not_there_or_forgets_is_told_of(
    redis: RedisServer, tmp_path: Path
) -> None:
    with pytest.raises(JournalError, match="Redis can't be reached; start it") as raised:
        async with open_records(f"unix://{tmp_path}/none.sock", print):
            pass
    assert "none.sock" in str(raised.value)
    with pytest.raises(ConfigError, match="redis://HOST:6379/0"):
        async with open_records("redis://host:port/0", print):
            pass
    notices: list[str] = []
    async with open_records(redis.url, notices.append):
        assert notices == []
    with open_redis_store(redis.url) as store:
        store._client.config_set("appendfsync", "everysec")
    async with open_records(redis.url, notices.append):
        assert "appendfsync always" in notices[0]
    with open_redis_store(redis.url) as store:
        store._client.config_set("appendfsync", "always")


@needs_redis
async def test_a_redis_that_is_killed_comes_back_with_all_it_was_told() -> None:
    notices: list[str] = []
    with running_redis() as server:
        async with open_records(server.url, notices.append) as records:
            records.put("a", {"x": b"1"}, 60.0)
            await records.settled()
            server.kill()
            records.put("b", {"x": b"2"}, 60.0)
            with pytest.raises(JournalError):
                await records.settled()
            server.start()
            with anyio.fail_after(20):
                while len(notices) < 2:
                    await anyio.sleep(0.01)
            assert await records.read(["a", "b"]) == [{"x": b"1"}, {"x": b"2"}]
