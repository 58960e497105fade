"""Whether ``panjiu loadtest`` sees what others see, and what the server did.

    python -m benchmarks.load_test.agreement

Starts ``panjiu emulate`` with one replica and, on that one server, gives the same requests to
``panjiu loadtest``, AIPerf (``make test-clients`` installs it) and ``vllm bench serve`` (``make
test-vllm``), in turn, so many rounds: single turns of several lengths, at equal distances in time,
or with ``--closed`` so many at a time, whose order on the server is another one every time. Prompts
share nothing with any before them. Each tool's figures stand beside those of the others, and
beside the server's own by its ``/metrics``: when tokens were due in emulated time. A tool that is
not installed is left out.

Lengths are exact for all: words are a token each here, and bodies are written once.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx2
import numpy as np

from benchmarks.load_test.tools import (
    MODEL,
    OFFLINE,
    ROOT,
    Request,
    Seen,
    Task,
    Tool,
    aiperf,
    check,
    panjiu,
    run_tool,
    vllm_bench,
)

TTFT = "time_to_first_token_seconds"
FAMILIES = (TTFT, "request_time_per_output_token_seconds", "e2e_request_latency_seconds")


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
            check(bool(line), told)
            told += line
        try:
            yield found.group(1)
        finally:
            process.terminate()
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
    parser.add_argument("--rate", type=float, default=0.8, help="requests a second")
    parser.add_argument("--closed", action="store_true", help="a closed loop instead")
    parser.add_argument("--streams", type=int, default=6, help="of a closed loop")
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
                rate = None if args.closed else args.rate
                salt = f"{name}{number}x"
                seen = tool(Task(url, requests, args.streams, rate, salt, place))
                truth = figures.since(args.requests)
                if not args.closed:
                    # What was asked for; tools differ in whether they count the wait for the first.
                    seen = replace(seen, tokens_per_s=None)
                runs[name].append((seen, truth))
                _print(f"{name}, round {number + 1}", seen, truth)
    _print_ratios(runs)


def _tools(args: argparse.Namespace, folder: Path) -> dict[str, Tool]:
    tools: dict[str, Tool] = {"panjiu": panjiu}
    if not (args.clients_bin / "python").exists():
        return tools
    tokeniser = folder / "tokeniser"
    script = ROOT / "tests/clients/make_tokeniser.py"
    run_tool([args.clients_bin / "python", script, tokeniser], folder, OFFLINE)
    if (args.clients_bin / "aiperf").exists():
        tools["aiperf"] = aiperf(args.clients_bin, tokeniser)
    if args.vllm_python.exists():
        tools["vllm bench"] = vllm_bench(args.vllm_python, tokeniser)
    return tools


def _print(title: str, seen: Seen, truth: Seen) -> None:
    print(
        f"{title}: TTFT {seen.ttft_s * 1e3:.1f} ms (server {truth.ttft_s * 1e3:.1f}), TPOT "
        f"{seen.tpot_s * 1e3:.2f} ms (server {truth.tpot_s * 1e3:.2f}), E2E {seen.e2e_s:.3f} s "
        f"(server {truth.e2e_s:.3f})"
        + ("" if seen.tokens_per_s is None else f", {seen.tokens_per_s:.1f} tokens/s"),
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
