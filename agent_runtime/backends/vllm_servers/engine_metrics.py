"""What ``GET /metrics`` of a vLLM server tells, as far as it is of use here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_SAMPLE = re.compile(r"(vllm:[a-z_]+)(?:\{(.*)\})? ([0-9.eE+-]+|NaN|\+Inf)")
_NAMES = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "cache_config_info",
)
_LOOKED_FOR = tuple(f"vllm:{name}{end}" for name in _NAMES for end in ("{", " "))
"""How the lines of interest begin: a page has hundreds of others, and it is read every second."""

_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One look at an engine.

    Attributes:
        num_running, num_waiting: Requests.
        kv_usage: Share of its KV blocks that requests hold.
        num_kv_blocks: That it has, or None where it doesn't say.
        block_size_tokens: Of one, or None.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    num_kv_blocks: int | None = None
    block_size_tokens: int | None = None

    @property
    def kv_tokens(self) -> int | None:
        """What its KV holds, or None where it doesn't say."""
        if self.num_kv_blocks is None or self.block_size_tokens is None:
            return None
        return self.num_kv_blocks * self.block_size_tokens


NO_METRICS = EngineMetrics()


def parse_metrics(text: str) -> EngineMetrics:
    """Read Prometheus' text form; data-parallel ranks are added up, their usage is averaged."""
    running = waiting = 0.0
    usages: list[float] = []
    blocks: int | None = None
    block_size: int | None = None
    for name, labels, value in _samples(text):
        match name:
            case "vllm:num_requests_running":
                running += value
            case "vllm:num_requests_waiting":
                waiting += value
            case "vllm:kv_cache_usage_perc":
                usages.append(value)
            case "vllm:cache_config_info":
                config = dict(_LABEL.findall(labels))
                block_size = _whole(config.get("block_size")) or block_size
                found = _whole(config.get("num_gpu_blocks"))
                blocks = (blocks or 0) + found if found else blocks
            case _:
                pass
    usage = sum(usages) / len(usages) if usages else 0.0
    return EngineMetrics(int(running), int(waiting), usage, blocks, block_size)


def _samples(text: str) -> Iterator[tuple[str, str, float]]:
    for line in text.split("\n"):
        found = _SAMPLE.fullmatch(line.rstrip()) if line.startswith(_LOOKED_FOR) else None
        if found is None:
            continue
        value = _number(found[3])
        if math.isfinite(value):
            yield found[1], found[2] or "", value


def _number(text: str) -> float:
    """Return a sample's value; NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
