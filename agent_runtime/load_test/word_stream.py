"""The text of KV blocks: equal words where a script's block ids are equal, others elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import shake_128

from agent_runtime.engine_measurement.filler_text import WORDS
from agent_runtime.load_test.shared_blocks import SharedBlocks
from agent_runtime.workload.block_id_runs import BlockIdRun, clipped, num_blocks

_WORD_OF_BYTE = [WORDS[byte % len(WORDS)] for byte in range(256)]


@dataclass(frozen=True, slots=True)
class SpokenName:
    """Whose words they are.

    Attributes:
        session_id: Of the script.
        round_number: How often the workload has begun again: what a session has for itself it
            says in other words then.
    """

    session_id: str
    round_number: int


class WordStream:
    """What stands at each position of a prompt.

    Words are common ones, which every vocabulary has whole. Those at a position depend on the id of
    its block, the position and the salt alone.

    Args:
        block_size_tokens: Of the script's blocks.
        tokens_per_word: As the server counts.
        shared: Blocks that stay the same when sessions come again.
        salt: Of this run: another run's prompts share nothing with it.
    """

    def __init__(
        self, block_size_tokens: int, tokens_per_word: float, shared: SharedBlocks, salt: str
    ) -> None:
        self._block_size = block_size_tokens
        self._tokens_per_word = tokens_per_word
        self._shared = shared
        self._salt = salt

    def text(
        self, name: SpokenName, runs: Sequence[BlockIdRun], start_tokens: float, num_words: int
    ) -> str:
        """Return so many words from a position of a prompt on.

        Args:
            name: Whose.
            runs: The ids of the prompt's blocks; what lies behind them is the session's own.
            start_tokens: The position, >= 0.
            num_words: >= 0.
        """
        start = int(start_tokens / self._tokens_per_word)
        block = int(start_tokens // self._block_size)
        while self._first_word(block + 1) <= start:  # rounding, or blocks of less than a word
            block += 1
        skipped = start - self._first_word(block)
        missing = num_words
        parts: list[str] = []
        for label in self._labels(name, runs, block):
            size = self._first_word(block + 1) - self._first_word(block)
            digest = shake_128(label.encode("utf-8", "surrogatepass")).digest(size)
            wanted = digest[skipped : skipped + missing]
            if wanted:
                parts.append(" ".join(map(_WORD_OF_BYTE.__getitem__, wanted)))
            missing -= len(wanted)
            skipped = max(0, skipped - size)
            block += 1
            if missing <= 0:
                break
        return " ".join(parts)

    def _first_word(self, block: int) -> int:
        return int(block * self._block_size / self._tokens_per_word)

    def _labels(
        self, name: SpokenName, runs: Sequence[BlockIdRun], first_block: int
    ) -> Iterator[str]:
        """Yield what each block's words come of, from a block of the prompt on, without end."""
        num_known = num_blocks(runs)
        for run in clipped(runs, first_block, num_known):
            for first, last, is_shared in self._shared.split(run):
                scope = "" if is_shared else f"@{name.round_number}"
                for block_id in range(first, last + 1):
                    yield f"{self._salt}{scope} {block_id:x}"
        block = max(first_block, num_known)
        while True:
            yield f"{self._salt}@{name.round_number} {name.session_id} {block}"
            block += 1
