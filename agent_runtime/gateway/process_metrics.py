"""What ``GET /metrics`` tells of the process: what grows in it where something is not let go."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

TASKS = "panjiu_tasks"
ABOUT_TASKS = "Asynchronous tasks under way: some for the server, and one or more a request."


class ProcessMetrics(Collector):
    """A collector of tasks, file descriptors, memory and CPU of this process."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)

    def describe(self) -> Iterator[Metric]:
        """Return what it has, without values: tasks can't be counted before there is a loop."""
        yield GaugeMetricFamily(TASKS, ABOUT_TASKS)
        yield from self._process.collect()

    @override
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(TASKS, ABOUT_TASKS, value=len(anyio.get_running_tasks()))
        yield from self._process.collect()
