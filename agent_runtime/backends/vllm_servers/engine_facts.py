"""What an engine says of itself when it joins: its models, its KV, and where its events are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent_runtime.backends.vllm_servers.engine_http import EngineHttp, EngineUnreachableError
from agent_runtime.backends.vllm_servers.engine_metrics import (
    NO_METRICS,
    EngineMetrics,
    parse_metrics,
)

OK = 200


@dataclass(frozen=True, slots=True)
class EventSource:
    """Where KV events are published.

    Attributes:
        endpoint: To subscribe to.
        replay_endpoint: To ask for missed ones, or None.
        topic: Of the events.
    """

    endpoint: str
    replay_endpoint: str | None = None
    topic: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine as it presents itself.

    Attributes:
        cards: Of its models, as ``GET /v1/models`` lists them.
        metrics: A first look.
        events: Where they are, or None where it publishes none that can be used.
        notices: What its user should know.
    """

    cards: tuple[dict[str, Any], ...]
    metrics: EngineMetrics
    events: EventSource | None
    notices: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The names it answers to."""
        return tuple(str(card["id"]) for card in self.cards)


async def ask_engine(http: EngineHttp, url: str) -> EngineFacts:
    """Ask an engine what it is.

    Raises:
        EngineUnreachableError: It does not answer, or not as vLLM does.
    """
    status, body = await http.get(f"{url}/v1/models")
    answer = _object(body)
    found = answer.get("data")
    if status != OK or not isinstance(found, list):
        raise EngineUnreachableError(f"{url}/v1/models answered {status}", refused=False)
    cards = tuple(card for card in found if isinstance(card, dict) and card.get("id"))
    metrics = await ask_metrics(http, url)
    events, notices = await _event_source(http, url)
    return EngineFacts(cards, metrics, events, notices)


async def ask_metrics(http: EngineHttp, url: str) -> EngineMetrics:
    """Look at an engine's metrics; nothing where it has none.

    Raises:
        EngineUnreachableError: It does not answer.
    """
    status, body = await http.get(f"{url}/metrics")
    return parse_metrics(body.decode("utf-8", "replace")) if status == OK else NO_METRICS


async def _event_source(http: EngineHttp, url: str) -> tuple[EventSource | None, tuple[str, ...]]:
    """Find out where KV events are. Since vLLM 0.32 an engine says so."""
    status, body = await http.get(f"{url}/kv_event_sources")
    sources = [source for source in _object(body).values() if isinstance(source, dict)]
    if status != OK or not sources:
        return None, ()
    if len(sources) > 1:
        ranks = f"its {len(sources)} data-parallel ranks' KV can't be told apart"
        return None, (f"{ranks}: start one server a rank to have its events used",)
    source = sources[0]
    host = urlsplit(url).hostname or ""
    replay = source.get("replay_endpoint")
    notices = () if replay else ("no replay_endpoint: events that get lost can't be asked for",)
    return (
        EventSource(
            reachable(str(source.get("endpoint")), host),
            reachable(str(replay), host) if replay else None,
            str(source.get("topic") or ""),
        ),
        notices,
    )


def reachable(endpoint: str, host: str) -> str:
    """Return a ZMQ endpoint as seen from here: one bound to every interface is on its host."""
    for every in ("tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"):
        if endpoint.startswith(every):
            name = f"[{host}]" if ":" in host else host
            return f"tcp://{name}:{endpoint.removeprefix(every)}"
    return endpoint


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
