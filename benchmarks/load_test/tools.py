"""The load generators that are compared, each given the same requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent_runtime.engine_measurement.filler_text import WORDS

ROOT = Path(__file__).parents[2]
MODEL = "qwen3-235b-a22b"
MOONCAKE_BLOCK = 512
MESSAGE_TOKENS = 3
"""Of a prompt of one message beside its words, by the emulated model's tokeniser."""

EVENLY = "1e9"
"""``vllm bench serve``'s burstiness with which requests come at equal distances."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",  # nothing listens there
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Request:
    """One of the requests that every tool sends: its lengths in tokens."""

    prompt_tokens: int
    output_tokens: int

    def text(self, salt: str) -> str:
        """Return a prompt of that length, whose first words nobody else's begin with."""
        seed = [ord(letter) for letter in salt] + [self.prompt_tokens, self.output_tokens]
        words = np.random.default_rng(seed).choice(WORDS, self.prompt_tokens - MESSAGE_TOKENS)
        return " ".join(words.tolist())


@dataclass(frozen=True, slots=True)
class Seen:
    """What one tool, or the server, said of one run: means in seconds, and tokens a second."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    tokens_per_s: float | None

    def over(self, other: Seen) -> tuple[float | None, ...]:
        """Return the ratios to another's."""
        rate = (
            None
            if self.tokens_per_s is None or other.tokens_per_s is None
            else self.tokens_per_s / other.tokens_per_s
        )
        return (
            self.ttft_s / other.ttft_s,
            self.tpot_s / other.tpot_s,
            self.e2e_s / other.e2e_s,
            rate,
        )


@dataclass(frozen=True, slots=True)
class Task:
    """What a tool is to do.

    Attributes:
        url: Of the server.
        requests: What to send.
        streams: At a time, in a closed loop.
        rate_per_s: Of requests, evenly, in an open loop; None for a closed one.
        salt: Of the prompts.
        folder: For files.
    """

    url: str
    requests: Sequence[Request]
    streams: int
    rate_per_s: float | None
    salt: str
    folder: Path


Tool = Callable[[Task], Seen]


def panjiu(task: Task) -> Seen:
    """Have ``panjiu loadtest`` do it."""
    trace, told = task.folder / "trace.jsonl", task.folder / "panjiu.json"
    load = ["--sessions", str(task.streams)]
    if task.rate_per_s is not None:
        load = ["--arrival", "trace"]
    trace.write_text("\n".join(_recorded(task)) + "\n")
    run_tool(
        [
            sys.executable, "-m", "agent_runtime.cli.main", "loadtest", "--url", task.url,
            "--model", MODEL, "--workload", trace, *load,
            "--salt", task.salt, "--session-id", "none", "--json", told,
        ],
        task.folder, {},
    )  # fmt: skip
    seen = json.loads(told.read_text())
    check(seen["turns"]["answered"] == len(task.requests), seen["errors"])
    check(seen["tokens"]["prompt_off_max"] == 0, "prompts of other lengths")
    for warning in seen["warnings"]:
        print(f"  panjiu warns: {warning}")
    return Seen(
        seen["ttft_s"]["mean"],
        seen["tpot_s"]["mean"],
        seen["e2e_s"]["mean"],
        seen["throughput"]["output_tokens_per_s"],
    )


def _recorded(task: Task) -> Iterator[str]:
    """Yield the requests in Mooncake's form, each with blocks of its own."""
    next_id = 0
    for number, request in enumerate(task.requests):
        num_blocks = -(-request.prompt_tokens // MOONCAKE_BLOCK)
        yield json.dumps(
            {
                "timestamp": round(1000 * number / (task.rate_per_s or 1.0)),
                "input_length": request.prompt_tokens,
                "output_length": request.output_tokens,
                "hash_ids": list(range(next_id, next_id + num_blocks)),
            }
        )
        next_id += num_blocks


def aiperf(clients: Path, tokeniser: Path) -> Tool:
    """Return AIPerf."""

    def use(task: Task) -> Seen:
        payloads = task.folder / "payloads.jsonl"
        load = ["--concurrency", str(task.streams)]
        if task.rate_per_s is not None:
            load = ["--request-rate", str(task.rate_per_s), "--arrival-pattern", "constant"]
        payloads.write_text("\n".join(_payloads(task)) + "\n")
        run_tool(
            [
                clients / "aiperf", "profile", "--model", MODEL, "--url", task.url, "--streaming",
                "--endpoint-type", "chat", "--input-file", payloads,
                "--custom-dataset-type", "raw-payload",
                "--dataset-sampling-strategy", "sequential",
                "--request-count", str(len(task.requests)), *load,
                "--tokenizer", tokeniser, "--use-server-token-count", "--ui", "none",
                "--artifact-dir", task.folder / "aiperf",
            ],
            task.folder, {},
        )  # fmt: skip
        told = json.loads((task.folder / "aiperf/profile_export_aiperf.json").read_text())
        check(told["request_count"]["avg"] == len(task.requests), told["error_summary"])
        return Seen(
            told["time_to_first_token"]["avg"] / 1000,
            told["inter_token_latency"]["avg"] / 1000,
            told["request_latency"]["avg"] / 1000,
            told["output_token_throughput"]["avg"],
        )

    return use


def _payloads(task: Task) -> Iterator[str]:
    for number, request in enumerate(task.requests):
        yield json.dumps(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": request.text(f"{task.salt}{number}")}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": request.output_tokens,
                "min_tokens": request.output_tokens,
                "ignore_eos": True,
            }
        )


def vllm_bench(python: Path, tokeniser: Path) -> Tool:
    """Return ``vllm bench serve``."""

    def use(task: Task) -> Seen:
        dataset = task.folder / "dataset.jsonl"
        load = ["--max-concurrency", str(task.streams)]
        if task.rate_per_s is not None:
            load = ["--request-rate", str(task.rate_per_s), "--burstiness", EVENLY]
        lines = (
            {"prompt": request.text(f"{task.salt}{number}"), "output_tokens": request.output_tokens}
            for number, request in enumerate(task.requests)
        )
        dataset.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        run_tool(
            [
                python, ROOT / "tests/clients/vllm_bench.py", "--backend", "openai-chat",
                "--base-url", task.url, "--endpoint", "/v1/chat/completions", "--model", MODEL,
                "--tokenizer", tokeniser, "--dataset-name", "custom", "--dataset-path", dataset,
                "--custom-output-len", "-1", "--skip-chat-template", "--disable-shuffle",
                "--num-prompts", str(len(task.requests)), *load,
                "--ignore-eos", "--num-warmups", "0", "--ready-check-timeout-sec", "0",
                "--percentile-metrics", "ttft,tpot,itl,e2el",
                "--save-result", "--result-dir", task.folder, "--result-filename", "vllm.json",
            ],
            task.folder, OFFLINE,
        )  # fmt: skip
        told = json.loads((task.folder / "vllm.json").read_text())
        check(told["completed"] == len(task.requests), told)
        return Seen(
            told["mean_ttft_ms"] / 1000,
            told["mean_tpot_ms"] / 1000,
            told.get("mean_e2el_ms", float("nan")) / 1000,
            told["output_throughput"],
        )

    return use


def check(is_right: bool, problem: object) -> None:  # noqa: FBT001 - as assert has it
    """End the benchmark if its run is not what was asked for."""
    if not is_right:
        raise SystemExit(f"not the run that was asked for: {problem}")


def run_tool(command: Sequence[str | Path], cwd: Path, more: dict[str, str]) -> None:
    """Run a program to its end; end the benchmark with what it printed if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    done = subprocess.run(  # noqa: S603 - the tools
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **QUIET, "PYTHONPATH": str(ROOT), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:4]))} failed:\n{done.stdout[-3000:]}")
