"""Benchmark programs of others against ``panjiu serve``, as users start them.

``make test-clients`` installs them and says where they are; without that nothing here runs. They
exit with 0 when requests fail, so what they wrote is read. The rack runs slower than real time, so
that what this machine adds to a first token is little beside what the rack takes for it.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.served_command import ROOT, ServedCommand, served_command

CLIENTS = os.environ.get("PANJIU_CLIENTS_BIN")
VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")
MODEL = "qwen3-8b"
SPEED = 0.25
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",  # nothing listens there
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
}
# aiperf 0.13 takes no directory for a tokeniser when these are set; it loads nothing then either.
HUB_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

pytestmark = pytest.mark.skipif(CLIENTS is None, reason="make test-clients")
with_vllm = pytest.mark.skipif(not VLLM_PYTHON, reason="make test-vllm installs vLLM")


def start(command: Sequence[str | Path], cwd: Path, more: Mapping[str, str] = HUB_OFFLINE) -> str:
    """Run a program to its end and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in HUB_OFFLINE}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **OFFLINE, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def client(name: str) -> Path:
    return Path(str(CLIENTS)) / name


@pytest.fixture(scope="module")
def served() -> Iterator[ServedCommand]:
    with served_command("--model", MODEL, "--replicas", "2", "--speed", str(SPEED)) as one:
        yield one


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokeniser")
    script = ROOT / "tests/clients/make_tokeniser.py"
    start([client("python"), script, directory], directory)
    return directory


@pytest.fixture(scope="module")
def real_time() -> Iterator[ServedCommand]:
    with served_command("--model", MODEL, "--replicas", "2") as one:
        yield one


class Emulated:
    """What the rack counted while a program ran."""

    turns = prompt_tokens = cached_tokens = output_tokens = 0
    mean_ttft_s = 0.0

    def check_ttft(self, told_s: float) -> None:
        """Fail unless a program saw about the first tokens that the rack made."""
        assert 0.9 * self.mean_ttft_s <= told_s * SPEED <= 2 * self.mean_ttft_s + 0.25


def counters(url: str) -> dict[str, float]:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("panjiu_")
    }


@contextmanager
def emulated_by(url: str) -> Iterator[Emulated]:
    """Yield what the rack counts from here to the end; filled in then."""
    rack, before = Emulated(), counters(url)
    yield rack
    more = {name: value - before.get(name, 0.0) for name, value in counters(url).items()}
    outcomes = {name: value for name, value in more.items() if "turns_total{" in name and value}
    assert all('outcome="answered"' in name for name in outcomes), outcomes
    rack.turns = int(sum(outcomes.values()))
    rack.prompt_tokens = int(more["panjiu_prompt_tokens_total"])
    rack.cached_tokens = int(more["panjiu_cached_prompt_tokens_total"])
    rack.output_tokens = int(more["panjiu_output_tokens_total"])
    count = more["panjiu_time_to_first_token_seconds_count"]
    rack.mean_ttft_s = more["panjiu_time_to_first_token_seconds_sum"] / count


def aiperf(url: str, tokeniser: Path, directory: Path, *options: str) -> dict[str, Any]:
    start(
        [
            client("aiperf"), "profile", "--model", MODEL, "--url", url, "--streaming",
            "--tokenizer", tokeniser, "--concurrency", "2", "--isl", "3000", "--osl", "16",
            "--use-server-token-count", "--extra-inputs", "ignore_eos:true", "--ui", "none",
            "--artifact-dir", directory, *options,
        ],
        directory, {},
    )  # fmt: skip
    told: dict[str, Any] = json.loads((directory / "profile_export_aiperf.json").read_text())
    assert told["error_summary"] == []
    assert told["request_error_rate"]["avg"] == 0
    return told


def test_aiperf_s_conversations_find_their_kv(
    served: ServedCommand, tokeniser: Path, tmp_path: Path
) -> None:
    with emulated_by(served.url) as rack:
        told = aiperf(
            served.url, tokeniser, tmp_path, "--endpoint-type", "chat", "--per-chunk-usage",
            "--conversation-num", "3", "--conversation-turn-mean", "3",
            "--conversation-turn-delay-mean", "100", "--session-header", "X-Session-ID",
        )  # fmt: skip
    assert told["request_count"]["avg"] == rack.turns == 9
    assert told["total_usage_prompt_tokens"]["avg"] == rack.prompt_tokens
    assert told["total_usage_completion_tokens"]["avg"] == rack.output_tokens == 9 * 16
    cached = told["total_usage_prompt_cache_read_tokens"]["avg"]
    assert cached == rack.cached_tokens > rack.prompt_tokens / 3
    rack.check_ttft(told["time_to_first_token"]["avg"] / 1000)
    assert told["inter_token_latency"]["p50"] > 0


@pytest.mark.parametrize("kind", ["completions", "responses", "messages"])
def test_aiperf_speaks_every_dialect(
    kind: str, served: ServedCommand, tokeniser: Path, tmp_path: Path
) -> None:
    with emulated_by(served.url) as rack:
        told = aiperf(
            served.url, tokeniser, tmp_path, "--endpoint-type", kind, "--request-count", "4"
        )
    assert told["request_count"]["avg"] == rack.turns == 4
    assert rack.output_tokens == 4 * 16
    rack.check_ttft(told["time_to_first_token"]["avg"] / 1000)


def test_guidellm_sees_the_rack_s_first_tokens(
    served: ServedCommand, tokeniser: Path, tmp_path: Path
) -> None:
    with emulated_by(served.url) as rack:
        start(
            [
                client("guidellm"), "run",
                "--backend", f"kind=openai_http,target={served.url},model={MODEL}",
                "--profile", "kind=concurrent,streams=2",
                "--constraint", "kind=max_requests,count=6",
                "--tokenizer", f"kind=huggingface_auto,model={tokeniser}",
                "--data", "kind=synthetic_text,prompt_tokens=3000,output_tokens=16",
                "--output", f"kind=json,path={tmp_path / 'told.json'}",
                "--disable-console-interactive",
            ],
            tmp_path,
        )  # fmt: skip
    metrics = json.loads((tmp_path / "told.json").read_text())["benchmarks"][0]["metrics"]
    assert metrics["request_totals"]["errored"] == 0
    assert metrics["request_totals"]["successful"] == rack.turns == 6
    rack.check_ttft(metrics["time_to_first_token_ms"]["successful"]["mean"] / 1000)


@with_vllm
@pytest.mark.parametrize(
    ("backend", "route"),
    [
        ("openai-chat", "/v1/chat/completions"),
        ("openai", "/v1/completions"),
        ("openai-responses", "/v1/responses"),
    ],
)
def test_vllm_s_bench_sees_the_rack_s_first_tokens(
    backend: str, route: str, served: ServedCommand, tokeniser: Path, tmp_path: Path
) -> None:
    with emulated_by(served.url) as rack:
        start(
            [
                str(VLLM_PYTHON), ROOT / "tests/clients/vllm_bench.py", "--backend", backend,
                "--base-url", served.url, "--endpoint", route,
                "--model", MODEL, "--tokenizer", tokeniser, "--dataset-name", "random",
                "--random-input-len", "3000", "--random-output-len", "16",
                "--num-prompts", "6", "--max-concurrency", "2", "--ignore-eos",
                "--save-result", "--result-dir", tmp_path, "--result-filename", "told.json",
            ],
            tmp_path,
        )  # fmt: skip
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["completed"], told["failed"]) == (6, 0)
    assert rack.turns >= 6  # and one to see whether anybody answers
    rack.check_ttft(told["mean_ttft_ms"] / 1000)


EXAMPLES = ROOT / "examples/load_tests"


@pytest.mark.parametrize(
    ("script", "variable", "program", "num_turns"),
    [
        ("aiperf.sh", "AIPERF", "aiperf", 32),
        ("guidellm.sh", "GUIDELLM", "guidellm", 40),
        pytest.param(
            "vllm_bench.sh",
            "VLLM_BENCH",
            f"{VLLM_PYTHON} {ROOT / 'tests/clients/vllm_bench.py'}",
            40,
            marks=with_vllm,
        ),
    ],
)
def test_examples_of_load_tests_run(  # noqa: PLR0917 - what pytest gives
    script: str,
    variable: str,
    program: str,
    num_turns: int,
    real_time: ServedCommand,
    tokeniser: Path,
    tmp_path: Path,
) -> None:
    named = program if " " in program else str(client(program))
    more = {variable: named, "OUT": str(tmp_path / "out.json")}
    with emulated_by(real_time.url) as rack:
        start(["sh", EXAMPLES / script, tokeniser, real_time.url], tmp_path, more)
    assert rack.turns == num_turns
    assert rack.output_tokens >= 64 * num_turns


def test_locust_s_users_talk(real_time: ServedCommand, tmp_path: Path) -> None:
    with emulated_by(real_time.url) as rack:
        start(
            [
                client("locust"), "-f", EXAMPLES / "locustfile.py", "--host", real_time.url,
                "--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "15s",
                "--stop-timeout", "30", "--json-file", tmp_path / "told",
            ],
            tmp_path,
        )  # fmt: skip
    rows = {row["name"]: row for row in json.loads((tmp_path / "told.json").read_text())}
    whole, first = rows["/v1/chat/completions"], rows["first token"]
    assert whole["num_requests"] == first["num_requests"] == rack.turns > 8
    assert whole["num_failures"] == 0
    assert whole["total_response_time"] > 2 * first["total_response_time"]
    assert rack.cached_tokens > rack.prompt_tokens / 2
