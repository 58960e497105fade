"""``GET /metrics`` of one look-alike: vLLM 0.32's families, names and labels.

Families that only features have which are not emulated (multi-modal cache, KV connectors, sleeping)
are there as a fresh engine has them. Source: vLLM 0.32, ``vllm/v1/metrics/loggers.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from agent_runtime.look_alikes.engine_meter import EngineMeter
from agent_runtime.look_alikes.lateness import LatenessMeter
from agent_runtime.look_alikes.prometheus_text import Histogram, MetricKind, MetricsPage
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore

_NOTHING = 0.0


def vllm_metrics(
    model: str,
    deployment: Deployment,
    engine: EngineCore,
    meter: EngineMeter,
    lateness: LatenessMeter,
) -> MetricsPage:
    """Return the page of one replica.

    Args:
        model: The name it is served under.
        deployment: Says what its KV cache is.
        engine: The replica.
        meter: Counts what it does.
        lateness: Counts how late its tokens were handed on.
    """
    page = MetricsPage()
    labels = {"engine": "0", "model_name": model}
    _gauges(page, labels, engine)
    _cache_config(page, deployment)
    _counters(page, labels, engine, meter)
    _histograms(page, labels, meter)
    page.histogram(
        "panjiu_lateness_seconds",
        "Real time minus due time of each batch of tokens handed to a connection.",
        {},
        lateness.histogram,
    )
    return page


def _gauges(page: MetricsPage, labels: dict[str, str], engine: EngineCore) -> None:
    def gauge(name: str, about: str, read: Callable[[], float]) -> None:
        page.value(f"vllm:{name}", MetricKind.GAUGE, about, [(labels, read)])

    gauge(
        "num_requests_running",
        "Number of requests in model execution batches.",
        lambda: engine.num_running,
    )
    gauge(
        "num_requests_waiting",
        "Number of requests waiting to be processed.",
        lambda: engine.num_waiting,
    )
    page.value(
        "vllm:num_requests_waiting_by_reason",
        MetricKind.GAUGE,
        "Number of waiting requests by reason.",
        [
            ({**labels, "reason": "capacity"}, lambda: engine.num_waiting),
            ({**labels, "reason": "deferred"}, lambda: _NOTHING),
        ],
    )
    page.value(
        "vllm:engine_sleep_state",
        MetricKind.GAUGE,
        "Engine sleep state; awake = 1 means engine is awake.",
        [
            ({**labels, "sleep_state": "awake"}, lambda: 1.0),
            ({**labels, "sleep_state": "weights_offloaded"}, lambda: _NOTHING),
            ({**labels, "sleep_state": "discard_all"}, lambda: _NOTHING),
        ],
    )
    gauge(
        "kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        lambda: engine.kv_active_ratio,
    )


def _cache_config(page: MetricsPage, deployment: Deployment) -> None:
    config = {
        "block_size": str(deployment.block_size_tokens),
        "cache_dtype": "auto",
        "enable_prefix_caching": "True",
        "engine": "0",
        "kv_cache_size_tokens": str(deployment.kv_tokens),
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(deployment.kv_blocks),
        "num_gpu_blocks_override": "None",
        "prefix_caching_hash_algo": "sha256",
        "sliding_window": "None",
    }
    about = "Information of the LLMEngine CacheConfig"
    page.value("vllm:cache_config_info", MetricKind.GAUGE, about, [(config, lambda: 1.0)])


def _counters(
    page: MetricsPage, labels: dict[str, str], engine: EngineCore, meter: EngineMeter
) -> None:
    def counter(name: str, about: str, read: Callable[[], float]) -> None:
        page.value(f"vllm:{name}", MetricKind.COUNTER, about, [(labels, read)])

    def nothing() -> float:
        return _NOTHING

    counter(
        "prefix_cache_queries",
        "Prefix cache queries, in terms of number of queried tokens.",
        lambda: engine.stats().num_prompt_tokens,
    )
    counter(
        "prefix_cache_hits",
        "Prefix cache hits, in terms of number of cached tokens.",
        lambda: engine.stats().num_cached_tokens,
    )
    external = "from KV connector cross-instance cache sharing."
    counter("external_prefix_cache_queries", f"External prefix cache queries {external}", nothing)
    counter("external_prefix_cache_hits", f"External prefix cache hits {external}", nothing)
    counter("mm_cache_queries", "Multi-modal cache queries.", nothing)
    counter("mm_cache_hits", "Multi-modal cache hits.", nothing)
    counter(
        "num_preemptions",
        "Cumulative number of preemption from the engine.",
        lambda: engine.stats().num_preemptions,
    )
    counter("prompt_tokens", "Number of prefill tokens processed.", lambda: meter.num_prompt_tokens)
    _by_source(page, labels, meter)
    counter(
        "generation_tokens",
        "Number of generation tokens processed.",
        lambda: meter.num_generated_tokens,
    )
    page.value(
        "vllm:request_success",
        MetricKind.COUNTER,
        "Count of successfully processed requests.",
        [
            ({**labels, "finished_reason": "stop"}, lambda: meter.num_stopped),
            ({**labels, "finished_reason": "length"}, lambda: meter.num_at_limit),
            *(
                ({**labels, "finished_reason": reason}, nothing)
                for reason in ("abort", "error", "repetition")
            ),
        ],
    )


def _by_source(page: MetricsPage, labels: dict[str, str], meter: EngineMeter) -> None:
    page.value(
        "vllm:prompt_tokens_by_source",
        MetricKind.COUNTER,
        "Number of prompt tokens by source.",
        [
            (
                {**labels, "source": "local_compute"},
                lambda: meter.num_prompt_tokens - meter.num_cached_tokens,
            ),
            ({**labels, "source": "local_cache_hit"}, lambda: meter.num_cached_tokens),
            ({**labels, "source": "external_kv_transfer"}, lambda: _NOTHING),
        ],
    )
    page.value(
        "vllm:prompt_tokens_cached",
        MetricKind.COUNTER,
        "Number of cached prompt tokens (local + external).",
        [(labels, lambda: meter.num_cached_tokens)],
    )


def _histograms(page: MetricsPage, labels: dict[str, str], meter: EngineMeter) -> None:
    def histogram(name: str, about: str, values: Histogram) -> None:
        page.histogram(f"vllm:{name}", about, labels, values)

    for name, about, values in (
        ("request_prompt_tokens", "Number of prefill tokens processed.", meter.prompt_tokens),
        (
            "request_generation_tokens",
            "Number of generation tokens processed.",
            meter.generation_tokens,
        ),
        (
            "iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            meter.step_tokens,
        ),
        (
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            meter.max_generation_tokens,
        ),
        ("request_params_n", "Histogram of the n request parameter.", meter.choices),
        (
            "request_params_max_tokens",
            "Histogram of the max_tokens request parameter.",
            meter.asked_tokens,
        ),
        (
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            meter.preemptions,
        ),
        (
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            meter.computed_tokens,
        ),
    ):
        histogram(name, about, values)
    for name, values in (
        ("time_to_first_token", meter.ttft_s),
        ("inter_token_latency", meter.token_latency_s),
        ("request_time_per_output_token", meter.request_token_s),
        ("e2e_request_latency", meter.e2e_s),
        ("request_queue_time", meter.queue_s),
        ("request_inference_time", meter.inference_s),
        ("request_prefill_time", meter.prefill_s),
        ("request_decode_time", meter.decode_s),
    ):
        histogram(f"{name}_seconds", f"Histogram of {name.replace('_', ' ')} in seconds.", values)
