"""Whether ``panjiu loadtest`` sees what others see, and what the server did.

    python -m benchmarks.load_test.agreement

Starts ``panjiu emulate`` with one replica and, on that one server, gives the same requests to
``panjiu loadtest``, AIPerf (``make test-clients`` installs it) and ``vllm bench serve`` (``make
test-vllm``), in turn, so many rounds: single turns of several lengths, so many at a time, prompts
that share nothing with any before them. Each tool's figures stand beside those of the others, and
beside the server's own by its ``/metrics``: when tokens were due in emulated time. A tool that is
not installed is left out.

Lengths are exact for all: words are a token each here, and bodies are written once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2
import numpy as np

from agent_runtime.engine_measurement.filler_text import WORDS

ROOT = Path(__file__).parents[2]
MODEL = "qwen3-235b-a22b"
BLOCK = 16
MESSAGE_TOKENS = 3
"""Of a prompt of one message beside its words, by the emulated model's tokeniser."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",  # nothing listens there
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
TTFT = "time_to_first_token_seconds"
FAMILIES = (TTFT, "request_time_per_output_token_seconds", "e2e_request_latency_seconds")
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
        streams: At a time.
        salt: Of the prompts.
        folder: For files.
    """

    url: str
    requests: Sequence[Request]
    streams: int
    salt: str
    folder: Path


Tool = Callable[[Task], Seen]


def panjiu(task: Task) -> Seen:
    """Have ``panjiu loadtest`` do it."""
    trace, told = task.folder / "trace.jsonl", task.folder / "panjiu.json"
    trace.write_text("\n".join(_recorded(task.requests)) + "\n")
    _run(
        [
            sys.executable, "-m", "agent_runtime.cli.main", "loadtest", "--url", task.url,
            "--model", MODEL, "--workload", trace, "--sessions", str(task.streams),
            "--salt", task.salt, "--session-id", "none", "--json", told,
        ],
        task.folder, {},
    )  # fmt: skip
    seen = json.loads(told.read_text())
    _check(seen["turns"]["answered"] == len(task.requests), seen["errors"])
    _check(seen["tokens"]["prompt_off_max"] == 0, "prompts of other lengths")
    for warning in seen["warnings"]:
        print(f"  panjiu warns: {warning}")
    return Seen(
        seen["ttft_s"]["mean"],
        seen["tpot_s"]["mean"],
        seen["e2e_s"]["mean"],
        seen["throughput"]["output_tokens_per_s"],
    )


def _recorded(requests: Sequence[Request]) -> Iterator[str]:
    """Yield each request as a recorded session of one call, with blocks of its own."""
    for number, request in enumerate(requests):
        num_blocks = request.prompt_tokens // BLOCK
        call = {
            "type": "n", "t": 0, "in": request.prompt_tokens, "out": request.output_tokens,
            "think_time": 0, "hash_runs": [[0, num_blocks - 1]],
        }  # fmt: skip
        yield json.dumps({"id": f"r{number}", "block_size": BLOCK, "requests": [call]})


def aiperf(clients: Path, tokeniser: Path) -> Tool:
    """Return AIPerf."""

    def use(task: Task) -> Seen:
        payloads = task.folder / "payloads.jsonl"
        payloads.write_text("\n".join(_payloads(task)) + "\n")
        _run(
            [
                clients / "aiperf", "profile", "--model", MODEL, "--url", task.url, "--streaming",
                "--endpoint-type", "chat", "--input-file", payloads,
                "--custom-dataset-type", "raw-payload",
                "--dataset-sampling-strategy", "sequential",
                "--request-count", str(len(task.requests)), "--concurrency", str(task.streams),
                "--tokenizer", tokeniser, "--use-server-token-count", "--ui", "none",
                "--artifact-dir", task.folder / "aiperf",
            ],
            task.folder, {},
        )  # fmt: skip
        told = json.loads((task.folder / "aiperf/profile_export_aiperf.json").read_text())
        _check(told["request_count"]["avg"] == len(task.requests), told["error_summary"])
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
        lines = (
            {"prompt": request.text(f"{task.salt}{number}"), "output_tokens": request.output_tokens}
            for number, request in enumerate(task.requests)
        )
        dataset.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        _run(
            [
                python, ROOT / "tests/clients/vllm_bench.py", "--backend", "openai-chat",
                "--base-url", task.url, "--endpoint", "/v1/chat/completions", "--model", MODEL,
                "--tokenizer", tokeniser, "--dataset-name", "custom", "--dataset-path", dataset,
                "--custom-output-len", "-1", "--skip-chat-template", "--disable-shuffle",
                "--num-prompts", str(len(task.requests)), "--max-concurrency", str(task.streams),
                "--ignore-eos", "--num-warmups", "0", "--ready-check-timeout-sec", "0",
                "--percentile-metrics", "ttft,tpot,itl,e2el",
                "--save-result", "--result-dir", task.folder, "--result-filename", "vllm.json",
            ],
            task.folder, OFFLINE,
        )  # fmt: skip
        told = json.loads((task.folder / "vllm.json").read_text())
        _check(told["completed"] == len(task.requests), told)
        return Seen(
            told["mean_ttft_ms"] / 1000,
            told["mean_tpot_ms"] / 1000,
            told.get("mean_e2el_ms", float("nan")) / 1000,
            told["output_throughput"],
        )

    return use


def _check(is_right: bool, problem: object) -> None:  # noqa: FBT001 - as assert has it
    if not is_right:
        raise SystemExit(f"not the run that was asked for: {problem}")


def _run(command: Sequence[str | Path], cwd: Path, more: dict[str, str]) -> None:
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


class ServerFigures:
    """What the server says it did, from one look at its ``/metrics`` to the next."""

    def __init__(self, url: str, speed: float) -> None:
        self._url = url
        self._speed = speed
        self._before = self._look()
        _ask_little(url)
        self._little = self._since_before()

    def since(self, num_requests: int) -> Seen:
        """Return the means in real seconds.

        Requests beyond ``num_requests`` are a tool's first look at the server, of a few tokens:
        they are taken out as what such a request took before.
        """
        sums = self._since_before()
        extra = sums[f"{TTFT}_count"] - num_requests
        means = [
            (sums[f"{name}_sum"] - extra * self._little[f"{name}_sum"]) / num_requests / self._speed
            for name in FAMILIES
        ]
        return Seen(means[0], means[1], means[2], None)

    def _since_before(self) -> dict[str, float]:
        before, self._before = self._before, self._look()
        return {name: value - before[name] for name, value in self._before.items()}

    def _look(self) -> dict[str, float]:
        text = httpx2.get(f"{self._url}/metrics").text
        found: dict[str, float] = {}
        for name in FAMILIES:
            for what in ("sum", "count"):
                pattern = rf"^vllm:{name}_{what}{{[^}}]*}} (\S+)$"
                values = re.findall(pattern, text, re.MULTILINE)
                found[f"{name}_{what}"] = sum(float(value) for value in values)
        return found


def _ask_little(url: str) -> None:
    httpx2.post(
        f"{url}/v1/chat/completions",
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": "the of and to in is that for"}],
            "max_tokens": 4,
            "ignore_eos": True,
        },
    ).raise_for_status()


@contextmanager
def emulated_server(speed: float) -> Iterator[str]:
    """Run ``panjiu emulate`` with one replica; give its address."""
    command = [
        sys.executable, "-m", "agent_runtime.cli.main", "emulate", "--replicas", "1",
        "--model", MODEL, "--base-port", "0", "--speed", str(speed),
    ]  # fmt: skip
    with subprocess.Popen(  # noqa: S603 - ours
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        stderr = process.stderr
        if stderr is None:
            raise RuntimeError("a pipe was asked for")
        told = ""
        while (found := re.search(r"listening on (http://\S+:\d+)", told)) is None:
            line = stderr.readline()
            _check(bool(line), told)
            told += line
        try:
            yield found.group(1)
        finally:
            process.send_signal(signal.SIGINT)
            print(stderr.read().strip().splitlines()[-1])
            process.wait()


def drawn_requests(count: int, seed: int) -> list[Request]:
    """Return requests whose lengths spread over a factor of four."""
    random = np.random.default_rng(seed)
    prompts = random.integers(2_000, 8_000, count).tolist()
    outputs = random.integers(40, 160, count).tolist()
    return [Request(*lengths) for lengths in zip(prompts, outputs, strict=True)]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--speed", type=float, default=0.5)
    parser.add_argument("--clients-bin", type=Path, default=ROOT / ".venv-clients/bin")
    parser.add_argument("--vllm-python", type=Path, default=ROOT / ".venv-vllm/bin/python")
    args = parser.parse_args()
    requests = drawn_requests(args.requests, seed=1)
    with tempfile.TemporaryDirectory() as folder, emulated_server(args.speed) as url:
        tools = _tools(args, Path(folder))
        figures = ServerFigures(url, args.speed)
        runs: dict[str, list[tuple[Seen, Seen]]] = {name: [] for name in tools}
        for number in range(args.rounds):
            for name, tool in tools.items():
                place = Path(folder) / f"{name}-{number}"
                place.mkdir()
                seen = tool(Task(url, requests, args.streams, f"{name}{number}x", place))
                truth = figures.since(args.requests)
                runs[name].append((seen, truth))
                _print(f"{name}, round {number + 1}", seen, truth)
    _print_ratios(runs)


def _tools(args: argparse.Namespace, folder: Path) -> dict[str, Tool]:
    tools: dict[str, Tool] = {"panjiu": panjiu}
    if not (args.clients_bin / "python").exists():
        return tools
    tokeniser = folder / "tokeniser"
    script = ROOT / "tests/clients/make_tokeniser.py"
    _run([args.clients_bin / "python", script, tokeniser], folder, OFFLINE)
    if (args.clients_bin / "aiperf").exists():
        tools["aiperf"] = aiperf(args.clients_bin, tokeniser)
    if args.vllm_python.exists():
        tools["vllm bench"] = vllm_bench(args.vllm_python, tokeniser)
    return tools


def _print(title: str, seen: Seen, truth: Seen) -> None:
    print(
        f"{title}: TTFT {seen.ttft_s * 1e3:.1f} ms (server {truth.ttft_s * 1e3:.1f}), TPOT "
        f"{seen.tpot_s * 1e3:.2f} ms (server {truth.tpot_s * 1e3:.2f}), E2E {seen.e2e_s:.3f} s "
        f"(server {truth.e2e_s:.3f}), {seen.tokens_per_s or 0:.1f} tokens/s",
        flush=True,
    )


def _print_ratios(runs: dict[str, list[tuple[Seen, Seen]]]) -> None:
    print(f"{'median of rounds':34}{'TTFT':>8}{'TPOT':>8}{'E2E':>8}{'tokens/s':>10}")
    rows = {f"{name} / server": [a.over(b) for a, b in some] for name, some in runs.items()}
    for name, some in runs.items():
        if name != "panjiu":
            pairs = zip(runs["panjiu"], some, strict=True)
            rows[f"panjiu / {name}"] = [ours.over(theirs) for (ours, _), (theirs, _) in pairs]
    for title, ratios in rows.items():
        cells = []
        for values in zip(*ratios, strict=True):
            known = [value for value in values if value is not None]
            cells.append(f"{median(known):.3f}" if known else "")
        print(f"{title:34}{cells[0]:>8}{cells[1]:>8}{cells[2]:>8}{cells[3]:>10}")


if __name__ == "__main__":
    main()
