"""A session's messages as its client has them: text of wanted lengths, and the server's replies.

A script says how long each prompt is and which blocks it shares. What the server counted is taken
in after every turn, so that errors in counting do not add up, and a reply that came out shorter or
longer than the script's leaves the next prompt as long as it should be.
"""

from __future__ import annotations

import msgspec

from agent_runtime.load_test.tokenisation import Tokenisation
from agent_runtime.load_test.word_stream import SpokenName, WordStream
from agent_runtime.workload.block_id_runs import BlockIdRun, common_prefix, num_blocks
from agent_runtime.workload.session_script import ScriptedTurn


class Conversation:
    """The messages of one session; each is encoded once.

    Args:
        name: Whose.
        words: What is said in it.
        tokenisation: Of the server.
        block_size_tokens: Of the script's blocks.

    Invariant: ``_messages``, ``_is_user`` and ``_ends`` are of one length; the messages up to and
        with the i-th take ``_ends[i]`` tokens without the prompt's opening, as far as known. Roles
        alternate, beginning with the user's.
    """

    def __init__(
        self,
        name: SpokenName,
        words: WordStream,
        tokenisation: Tokenisation,
        block_size_tokens: int,
    ) -> None:
        self._name = name
        self._words = words
        self._tokenisation = tokenisation
        self._block_size = block_size_tokens
        self._messages: list[bytes] = []
        self._is_user: list[bool] = []
        self._ends: list[float] = []
        self._runs: tuple[BlockIdRun, ...] = ()

    def fork(self, name: SpokenName) -> Conversation:
        """Return a sub-agent's: it begins as this one stands, as far as they share blocks."""
        other = Conversation(name, self._words, self._tokenisation, self._block_size)
        other._messages, other._is_user = self._messages[:], self._is_user[:]
        other._ends, other._runs = self._ends[:], self._runs
        return other

    def ask(self, turn: ScriptedTurn) -> bytes:
        """Return the JSON of a turn's messages, without brackets.

        A prompt that no message fits has one of a single word, and is longer than it should be.
        """
        num_kept = common_prefix(self._runs, turn.block_id_runs)
        if num_kept < num_blocks(self._runs) or self._room_words(turn) < 1:
            self._rewind(turn, num_kept * self._block_size)
        num_words = max(1, self._room_words(turn))
        self._runs = turn.block_id_runs
        text = self._words.text(self._name, self._runs, self._end, num_words)
        self._append("user", text, num_words * self._tokenisation.tokens_per_word)
        return b",".join(self._messages)

    def counted(self, prompt_tokens: int) -> None:
        """Take in what the server counted for the prompt that was asked last."""
        self._ends[-1] = prompt_tokens - self._tokenisation.opening_tokens

    def hear(self, reply: str, num_tokens: int) -> None:
        """Take in what the server answered."""
        self._append("assistant", reply, num_tokens)

    def fill(self, num_tokens: int) -> None:
        """Say something of about that length in the server's place."""
        num_words = max(1, round(num_tokens / self._tokenisation.tokens_per_word))
        self.hear(self._words.text(self._name, self._runs, self._end, num_words), num_tokens)

    @property
    def _end(self) -> float:
        return self._ends[-1] if self._ends else 0.0

    def _room_words(self, turn: ScriptedTurn) -> int:
        counting = self._tokenisation
        room = turn.isl_tokens - self._end - counting.message_tokens - counting.opening_tokens
        return round(room / counting.tokens_per_word)

    def _rewind(self, turn: ScriptedTurn, kept_tokens: int) -> None:
        """Take back what goes beyond the blocks kept, or leaves no room, or is the user's last."""
        while self._ends and (
            self._end > kept_tokens or self._is_user[-1] or self._room_words(turn) < 1
        ):
            self._messages.pop()
            self._is_user.pop()
            self._ends.pop()

    def _append(self, role: str, text: str, num_tokens: float) -> None:
        self._messages.append(msgspec.json.encode({"role": role, "content": text}))
        self._is_user.append(role == "user")
        self._ends.append(self._end + num_tokens + self._tokenisation.message_tokens)
