"""Session scripts as chat messages: prompts of the scripted lengths that share the scripted blocks.

A script says how long each prompt is and which KV blocks it has in common with others. Here that
becomes text that the endpoint's tokeniser counts to the same lengths and cuts to blocks that are
equal where the script's are, so that a trace can be replayed through a client.

A message costs a token before and one after its text, a reply the same, and a prompt ends with the
token that opens the reply; see ``agent_runtime.prompts.chat_prompt``.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from agent_runtime.errors import TraceError
from agent_runtime.workload.block_id_runs import BlockIdRun, clipped, common_prefix, num_blocks
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript

MESSAGE_TOKENS = 2
"""Role and end of a message."""

OPENING_TOKENS = 1
"""What a prompt ends with."""

FILLER = "step"
LETTERS_A_WORD = 8
ALPHABET = 26

Message = dict[str, Any]


class SpokenSession:
    """A session script's messages, turn by turn.

    Blocks that two prompts share in the script are shared in their text as long as the messages
    before them have the same lengths: a trunk in the first message is, and so is a history that
    grows. A history that is rewound to the middle of a message, or of a reply, shares less.

    Args:
        script: Who speaks.
        block_size_tokens: Of the script's blocks, and of the engine's.

    Invariant: ``messages`` take ``_ends[-1]`` tokens in all, ``_ends[i]`` up to and with the i-th.
    """

    def __init__(self, script: SessionScript, block_size_tokens: int) -> None:
        self.messages: list[Message] = []
        self._script = script
        self._block_size = block_size_tokens
        self._ends: list[int] = []
        self._runs: tuple[BlockIdRun, ...] = ()

    def ask(self, turn: ScriptedTurn) -> list[Message]:
        """Return the messages of a turn's prompt; they take ``turn.isl_tokens``.

        Raises:
            TraceError: The prompt is too short to be said in messages.
        """
        num_kept = common_prefix(self._runs, turn.block_id_runs)
        if num_kept < num_blocks(self._runs) or self._room(turn) < 0:
            self._rewind(turn, num_kept * self._block_size)
        num_text = self._room(turn)
        if num_text < 0:
            raise TraceError(
                f"a prompt of {turn.isl_tokens} tokens is too short for a message",
                path=self._script.session_id,
            )
        self._runs = turn.block_id_runs
        self._append("user", self._text(turn, self._end + 1, num_text), num_text)
        return list(self.messages)

    def hear(self, turn: ScriptedTurn, reply: str) -> None:
        """Take in what the model answered, ``turn.osl_tokens`` long."""
        self._append("assistant", reply, turn.osl_tokens)

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _room(self, turn: ScriptedTurn) -> int:
        return turn.isl_tokens - self._end - MESSAGE_TOKENS - OPENING_TOKENS

    def _rewind(self, turn: ScriptedTurn, kept_tokens: int) -> None:
        """Take back the messages that go beyond what is kept, or leave no room for another."""
        while self._ends and (self._end > kept_tokens or self._room(turn) < 0):
            self._ends.pop()
            self.messages.pop()

    def _append(self, role: str, text: str, num_tokens: int) -> None:
        self.messages.append({"role": role, "content": text})
        self._ends.append(self._end + num_tokens + MESSAGE_TOKENS)

    def _text(self, turn: ScriptedTurn, start: int, num_tokens: int) -> str:
        """Return the words at the positions ``start <= p < start + num_tokens`` of the prompt."""
        size, stop = self._block_size, start + num_tokens
        first, last = start // size, -(-stop // size)
        num_full = num_blocks(turn.block_id_runs)
        words: list[str] = []
        for low, high in clipped(turn.block_id_runs, first, min(last, num_full)):
            for block_id in range(low, high + 1):
                words += _block_words(f"{block_id:x}", size)
        for block in range(max(first, num_full), last):
            words += _block_words(f"{self._script.session_id} {block}", size)
        return " ".join(words[start - first * size : stop - first * size])


def _block_words(name: str, size: int) -> list[str]:
    """Return a block's words: two that come of its name, twice in the block, and filler."""
    words = [FILLER] * size
    named = _words_of(name)
    for place in (1, size // 2):
        words[place : place + 2] = named[: len(words[place : place + 2])]
    return words


def _words_of(name: str) -> list[str]:
    """Return two words of letters that stand for ``name``."""
    number = int.from_bytes(blake2b(name.encode(), digest_size=9).digest())
    letters = []
    for _ in range(2 * LETTERS_A_WORD):
        number, letter = divmod(number, ALPHABET)
        letters.append(chr(ord("a") + letter))
    text = "".join(letters)
    return [text[:LETTERS_A_WORD], text[LETTERS_A_WORD:]]
