"""Which engines are wanted: named, listed in a file that may change, or found by DNS."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from socket import gaierror
from urllib.parse import urlsplit

import anyio

from agent_runtime.backends.vllm_servers.engine_facts import EventSource
from agent_runtime.backends.vllm_servers.engine_fleet import EngineAddress
from agent_runtime.errors import ConfigError

REREAD_S = 2.0
"""Between two looks at the file and the names."""


@dataclass(frozen=True, slots=True)
class EngineSources:
    """Where engines are named.

    Attributes:
        urls: Outright.
        file: In a file; None for none.
        dns: By names that stand for any number of hosts: ``(name, port)``.
    """

    urls: Sequence[str] = ()
    file: str | None = None
    dns: Sequence[tuple[str, int]] = ()


class EngineDirectory:
    """The engines that are wanted, as that changes.

    A file or name that can't be read for the moment leaves things as they are.

    Args:
        sources: Where they are named.
        notice: Told, in words, what can't be read.
        reread_s: Between two looks.
    """

    def __init__(
        self,
        sources: EngineSources,
        notice: Callable[[str], None],
        *,
        reread_s: float = REREAD_S,
    ) -> None:
        self._sources = sources
        self._notice = notice
        self._reread_s = reread_s
        self._named = [EngineAddress(engine_url(url, "--engine")) for url in sources.urls]
        self._in_file: list[EngineAddress] = []
        self._by_name: dict[tuple[str, int], list[EngineAddress]] = {}
        self._told: set[str] = set()

    async def changes(self) -> AsyncGenerator[list[EngineAddress]]:
        """Yield all engines that are wanted, at first and whenever that is another set."""
        before: list[EngineAddress] | None = None
        while True:
            wanted = await self._wanted()
            if wanted != before:
                before = wanted
                yield wanted
            if self._sources.file is None and not self._sources.dns:
                await anyio.sleep_forever()
            await anyio.sleep(self._reread_s)

    async def _wanted(self) -> list[EngineAddress]:
        if self._sources.file is not None:
            try:
                text = await anyio.Path(self._sources.file).read_text(encoding="utf-8")
                self._in_file = parse_engines(text, self._sources.file)
            except (OSError, UnicodeDecodeError, ConfigError) as error:
                self._tell_once(str(error))
        for name, port in self._sources.dns:
            try:
                self._by_name[name, port] = await _resolved(name, port)
            except gaierror as error:
                self._tell_once(f"--engines-dns {name}:{port}: {error}")
        found = [*self._named, *self._in_file]
        for addresses in self._by_name.values():
            found.extend(addresses)
        return list({address.url: address for address in found}.values())

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._notice(f"{text}; the engines stay as they are")


async def _resolved(name: str, port: int) -> list[EngineAddress]:
    found = await anyio.getaddrinfo(name, port, type=1)
    hosts = sorted({str(info[4][0]) for info in found})
    return [EngineAddress(f"http://{f'[{h}]' if ':' in h else h}:{port}") for h in hosts]


def parse_engines(text: str, place: str) -> list[EngineAddress]:
    """Read a list of engines: a URL a line with ``#`` comments, or TOML with ``[[engine]]`` tables.

    Raises:
        ConfigError: Names the line or the table.
    """
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    if any(line.startswith("[") for line in lines):
        return _parse_toml(text, place)
    return [
        EngineAddress(engine_url(line, f"{place}, line {number}"))
        for number, line in enumerate(lines, start=1)
        if line
    ]


def _parse_toml(text: str, place: str) -> list[EngineAddress]:
    try:
        tables = tomllib.loads(text).get("engine")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: {error}") from error
    if not isinstance(tables, list):
        raise ConfigError(f'{place}: expected [[engine]] tables, each with url = "http://..."')
    return [
        _parse_table(table, f"{place}, engine {number}")
        for number, table in enumerate(tables, start=1)
    ]


def _parse_table(table: object, place: str) -> EngineAddress:
    known = {"url": str, "drain": bool, "kv_events": str, "kv_replay": str, "kv_topic": str}
    if not isinstance(table, dict) or not set(table) <= set(known):
        raise ConfigError(f"{place}: the known keys are {', '.join(known)}")
    for key, value in table.items():
        if not isinstance(value, known[key]):
            kind = "true or false" if known[key] is bool else "a string"
            raise ConfigError(f"{place}: {key} must be {kind}")
    events = None
    if "kv_events" in table:
        events = EventSource(table["kv_events"], table.get("kv_replay"), table.get("kv_topic", ""))
    url = engine_url(table.get("url", ""), place)
    return EngineAddress(url, drain=table.get("drain", False), events=events)


def engine_url(text: str, place: str) -> str:
    """Return an engine's address without a path.

    Raises:
        ConfigError: It is no ``http://host:port``.
    """
    parts = urlsplit(text.rstrip("/").removesuffix("/v1"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
        raise ConfigError(f"{place}: expected http://HOST:PORT, got {text!r}")
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{place}: {text!r}: {error}") from error
    return f"{parts.scheme}://{parts.netloc}"
