"""Kills processes under load, and checks that nothing is lost:

python -m tests.kills --kills 50                        engines whose words can be checked
python -m tests.kills --kills 50 --engines look-alikes  panjiu emulate
python -m tests.kills --kills 50 --engines vllm         real vLLM ($PANJIU_VLLM_PYTHON)
python -m tests.kills --kills 50 --gateways 2           two gateways over one Redis
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import anyio
from rich.console import Console

from tests.kills.fleet import KilledProcess, look_alikes, vllm_servers, word_engines
from tests.kills.run import KillRun, Terms, Told
from tests.redis_server import running_redis

KILLS_OF_A_VLLM = 25
"""Of so many kills one is of an engine that takes a minute to start, if the other leaves it CPU."""


def kill_run(terms: Terms, kind: str, progressed: Callable[[str], None]) -> Told:
    """Run one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills")))
        redis = stack.enter_context(running_redis()) if terms.num_gateways > 1 else None
        engines = _engines(kind, folder)
        return anyio.run(KillRun(terms, engines, redis, folder, progressed).run)


def terms_of(kind: str, terms: Terms) -> Terms:
    """Return what is run before a kind of engines."""
    if kind == "words":
        return terms
    if kind == "look-alikes":
        return replace(terms, model="qwen3-8b", checks_words=False)
    return replace(
        terms,
        model="tiny",
        checks_words=False,
        num_engine_kills=1 + terms.num_kills // KILLS_OF_A_VLLM,
    )


def _engines(kind: str, folder: Path) -> list[KilledProcess]:
    if kind == "words":
        return word_engines(3, folder)
    if kind == "look-alikes":
        return look_alikes(3, folder)
    python = os.environ.get("PANJIU_VLLM_PYTHON")
    if python is None:
        sys.exit(
            "set PANJIU_VLLM_PYTHON to the python of a venv with vLLM (make test-vllm has one)"
        )
    return vllm_servers(2, python, folder)


def main() -> int:
    """Run what the command line says; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--engines", choices=("words", "look-alikes", "vllm"), default="words")
    parser.add_argument("--gateways", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--sessions", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    args = parser.parse_args()
    terms = terms_of(args.engines, Terms(args.kills, args.sessions, args.gateways, seed=args.seed))
    told = kill_run(terms, args.engines, Console(stderr=True, highlight=False).print)
    console = Console(highlight=False)
    kills = ", ".join(f"{times} of {kind}" for kind, times in told.killed.most_common())
    ends = ", ".join(f"{times} {end}" for end, times in told.ends.most_common())
    console.print(
        f"{told.killed.total()} kills ({kills}) before {args.engines}; {args.sessions} sessions "
        f"had {told.num_turns} turns, asked for {told.ends.total()} times ({ends}); the program "
        f"had {told.num_rounds} rounds and {told.num_tool_calls} tool calls"
    )
    for problem in told.problems:
        console.print(problem, markup=False)
    console.print(f"{len(told.problems)} promises were broken")
    return int(bool(told.problems))


if __name__ == "__main__":
    sys.exit(main())
