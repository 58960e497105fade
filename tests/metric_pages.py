"""What ``/metrics`` of everything that has one exposes, after a turn or two."""

from __future__ import annotations

from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests.look_alike_rack import served_look_alikes
from tests.lookalike_engine import LookalikeEngine
from tests.served_engines import chat_body, served_engines
from tests.served_rack import MODEL, served_rack

OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Exposed:
    """A metric.

    Attributes:
        name: As queries have it, but a histogram's without what its series end with.
        kind: What Prometheus calls its type.
        labels: But ``le``.
    """

    name: str
    kind: str
    labels: frozenset[str]


async def exposed_by_emulated_serve() -> set[Exposed]:
    async with served_rack() as served:
        return await _after_a_turn(served.url)


async def exposed_by_serve_before_engines() -> set[Exposed]:
    async with served_engines([LookalikeEngine(model=MODEL)]) as served:
        return await _after_a_turn(served.url)


async def exposed_by_emulate() -> set[Exposed]:
    async with served_look_alikes() as served:
        return await _after_a_turn(served.urls[0])


async def _after_a_turn(url: str) -> set[Exposed]:
    async with httpx2.AsyncClient(timeout=30) as http:
        told = await http.post(f"{url}/v1/chat/completions", json={"model": MODEL, **chat_body()})
        assert told.status_code == 200, told.text
        return _exposed((await http.get(f"{url}/metrics")).text)


def _exposed(text: str) -> set[Exposed]:
    found = set()
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue  # when counting began: the client library's own
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found.add(Exposed(name, family.type, frozenset(labels)))
    return found
