"""What ``GET /metrics`` tells of the process: what grows in it where something is not let go."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override


class ProcessMetrics(Collector):
    """A collector of tasks, file descriptors, memory and CPU of this process."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)

    @override
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "panjiu_tasks",
            "Asynchronous tasks under way: some for the server, and one or more a request.",
            value=len(anyio.get_running_tasks()),
        )
        yield from self._process.collect()
