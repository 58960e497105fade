"""What it costs to read an agent's next turn: all of it, or what its session has not had yet.

    python -m benchmarks.gateway.reading_chats

A turn's body is read, its prompt rendered and the session's memory brought up to it, in this
process alone; microseconds a turn, the least of several passes. Compare columns: machines differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from agent_runtime.gateway.relay.chat_apis import ChatApi
from agent_runtime.gateway.relay.relayed_api import RelayedPrompt
from agent_runtime.prompts.chat_prompt import PromptMemory
from benchmarks.gateway.conversations import CONVERSATIONS, turns

MOST_TOKENS = 1_000_000
BLOCK_TOKENS = 16


def read_on(prompt: RelayedPrompt, memory: PromptMemory) -> None:
    """Read what the memory does not have, as the gateway does of sessions that are named."""
    prompt.open_in(memory, None, MOST_TOKENS)


def read_whole(prompt: RelayedPrompt, memory: PromptMemory) -> None:
    """Read all of it, and find what is new by comparing messages."""
    memory.open_prompt(prompt.pieces)


def us_a_turn(
    bodies: Sequence[bytes], read: Callable[[RelayedPrompt, PromptMemory], None], passes: int
) -> float:
    """Return what a turn after the first costs."""
    api, least_s = ChatApi(), float("inf")
    for _ in range(passes):
        memory = PromptMemory(BLOCK_TOKENS)
        read(api.prompt(api.read(bodies[0])), memory)
        began_s = time.perf_counter()
        for body in bodies[1:]:
            read(api.prompt(api.read(body)), memory)
        least_s = min(least_s, time.perf_counter() - began_s)
    return least_s / (len(bodies) - 1) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=30, help="a session")
    parser.add_argument("--passes", type=int, default=5)
    args = parser.parse_args()
    table = Table(box=None)
    table.add_column("first request")
    for heading in ("read whole, us", "read on, us", "ratio"):
        table.add_column(heading, justify="right")
    for first in CONVERSATIONS:
        bodies = [
            request.partition(b"\r\n\r\n")[2] for request in turns("reading", first, args.turns)
        ]
        whole, on = (us_a_turn(bodies, read, args.passes) for read in (read_whole, read_on))
        table.add_row(str(first), f"{whole:,.0f}", f"{on:,.0f}", f"{on / whole:.2f}x")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
