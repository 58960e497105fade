"""From chat messages to prompt tokens and chained block hashes, at the cost of what is new.

A session's prompt mostly grows at its end, so its tokens and hashes are kept, and only messages
that were not there in the turn before are tokenised. Hashes depend on tokens alone: sessions with
the same leading messages share KV blocks.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

from typing_extensions import override

from agent_runtime.errors import InvalidRequestError
from agent_runtime.prompts.block_hashes import Prompt, extend_hashes, root_of
from agent_runtime.prompts.sent_prompt import SentPrompt
from agent_runtime.prompts.tokeniser import is_longer, marker, tokenise
from agent_runtime.prompts.tool_call_text import SEPARATOR, tool_call_text

END_OF_MESSAGE = marker("end of message")
CALLS_KNOWN = 1 << 15
"""Tool calls that are not parsed again."""
_PLAIN = ("role", "content")
"""A message of these alone is its text; most are, and every turn brings all of them again."""


class PromptPiece(Protocol):
    """A part of a prompt; equal digests are equal parts."""

    @property
    def role(self) -> str:
        """Who speaks."""
        ...

    @property
    def fingerprint(self) -> int:
        """Equal parts have equal ones; 64 bits, of this process alone, at a quarter of the cost."""
        ...

    @property
    def digest(self) -> bytes:
        """Of role and content."""
        ...

    def tokens(self) -> array[int]:
        """Return the tokens of its content."""
        ...


class RenderedMessage:
    """A message as the model sees it; equal text is an equal message.

    Attributes:
        role: Who speaks, ``tools`` for the tool definitions that come first.
        text: What is said, tool calls and names included.
    """

    __slots__ = ("_digest", "role", "text")

    def __init__(self, role: str, text: str) -> None:
        self.role = role
        self.text = text
        self._digest: bytes | None = None  # until it is asked for: named sessions need none

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RenderedMessage):
            return NotImplemented
        return self.role == other.role and self.text == other.text

    @override
    def __hash__(self) -> int:
        return self.fingerprint

    @property
    def digest(self) -> bytes:
        """Of both."""
        if self._digest is None:
            data = f"{self.role}\0{self.text}".encode("utf-8", "surrogatepass")
            self._digest = blake2b(data, digest_size=16).digest()
        return self._digest

    @property
    def fingerprint(self) -> int:
        """Of both: Python's own hash, with a key that nobody outside knows."""
        return hash((self.role, self.text))

    def tokens(self) -> array[int]:
        """Return the tokens of its text."""
        return tokenise(self.text)


def render_chat(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[RenderedMessage]:
    """Return what the model sees: the tool definitions if any, then the messages.

    Raises:
        InvalidRequestError: Content that is neither text nor a list of text parts.
    """
    rendered = [RenderedMessage("tools", _json(tools))] if tools else []
    for index, message in enumerate(messages):
        if len(message) == len(_PLAIN) and isinstance(message.get("content"), str):
            rendered.append(RenderedMessage(message["role"], message["content"]))
            continue
        text = content_text(message.get("content"), f"messages[{index}].content")
        for call in _calls(message):
            text += (SEPARATOR if text else "") + call
        for key in ("name", "function_call", "tool_call_id"):
            if message.get(key):  # clients send back what was not there as null, [] or ""
                text += f"\n{key}: {_json(message[key])}"
        rendered.append(RenderedMessage(message["role"], text))
    return rendered


def are_longer(pieces: Sequence[PromptPiece], most_tokens: int) -> bool:
    """Return whether the texts of a prompt have certainly more tokens, see ``is_longer``."""
    texts = [piece.text for piece in pieces if isinstance(piece, RenderedMessage)]
    return is_longer(texts, most_tokens)


def chain_digests(messages: Sequence[PromptPiece]) -> list[bytes]:
    """Return per message a digest of it and all before it."""
    digests, digest = [], b""
    for message in messages:
        digest = digest_after(digest, message)
        digests.append(digest)
    return digests


def digest_after(digest: bytes, message: PromptPiece) -> bytes:
    """Return the digest of a message and all before it, whose own is given."""
    return blake2b(digest + message.digest, digest_size=16).digest()


class PromptMemory:
    """The tokens of one session's latest prompt and reply.

    Attributes:
        salt: Of its blocks.
        sent: By what the prompt is known when it comes again with more; None where it is not.

    Invariant: ``_messages`` are its messages' fingerprints, which are compared with nothing else;
        ``_ends[i]`` is the number of tokens that ``_messages[:i + 1]`` take;
        ``sent`` is None, or stands for exactly these messages;
        ``_digests`` are the chain digests of the first so many of them;
        ``_hashes`` are those of the full blocks of the tokens up to ``_ends[-1]`` at the most, in
        the chain that begins with ``_root``, which is that of ``salt``.
    """

    __slots__ = (
        "_block_size", "_digests", "_ends", "_hashes", "_messages", "_root", "_tokens", "salt",
        "sent",
    )  # fmt: skip

    def __init__(self, block_size_tokens: int) -> None:
        self._block_size = block_size_tokens
        self._messages: list[int] = []
        self._digests: list[bytes] = []
        self._ends: list[int] = []
        self._tokens: array[int] = array("I")
        self._hashes: list[int] = []
        self.salt: str | None = None
        self._root = root_of(None)
        self.sent: SentPrompt | None = None

    def open_prompt(
        self,
        messages: Sequence[PromptPiece],
        salt: str | None = None,
        sent: SentPrompt | None = None,
    ) -> int:
        """Bring the memory up to ``messages``; return the tokens of the prompt they make.

        Args:
            messages: Of the prompt.
            salt: Prompts with other salts share no block with it.
            sent: What stands for them in the next prompt, see ``go_on``.
        """
        self.sent = sent
        if salt != self.salt:
            self._truncate(0)
            self.salt, self._root = salt, root_of(salt)
        kept = 0
        for known, message in zip(self._messages, messages, strict=False):
            if known != message.fingerprint:
                break
            kept += 1
        self._truncate(kept)
        return self._with(messages[kept:])

    def go_on(self, more: Sequence[PromptPiece], sent: SentPrompt) -> int:
        """Bring the memory up to the prompt that it has, and more; return the tokens of that.

        Args:
            more: Messages after those that ``sent`` stood for.
            sent: What stands for all of them.
        """
        self.sent = sent
        return self._with(more)

    def digests(self, messages: Sequence[PromptPiece]) -> list[bytes]:
        """Return the chain digests of the prompt that was opened last, see ``chain_digests``.

        Args:
            messages: Of that prompt.
        """
        digests = self._digests
        for message in messages[len(digests) :]:
            digests.append(digest_after(digests[-1] if digests else b"", message))
        return digests[:]

    def plan(self, reply: array[int]) -> Prompt:
        """Return the prompt with the hashes that a reply of these tokens leads to."""
        context = self._tokens[:]
        context.append(marker("assistant"))
        num_tokens = len(context)
        context.extend(reply)
        hashes = self._hashes[:]
        extend_hashes(hashes, context, self._block_size, self._root)
        return Prompt(num_tokens, tuple(hashes), context, self.salt)

    def hashes(self) -> tuple[int, ...]:
        """Return the hashes of the prompt's full blocks alone."""
        return tuple(self._hashes)

    def tokens(self) -> array[int]:
        """Return the tokens of the messages, without the opening of a reply."""
        return self._tokens[:]

    def num_tokens_before(self, message: int) -> int:
        """Return how many tokens the first so many messages of the prompt take."""
        return self._ends[message - 1] if message else 0

    def copy(self) -> PromptMemory:
        """Return another memory of the same prompt."""
        other = PromptMemory(self._block_size)
        other.salt, other._root = self.salt, self._root
        other._messages, other._ends = self._messages[:], self._ends[:]
        other._digests, other.sent = self._digests[:], self.sent
        other._tokens, other._hashes = self._tokens[:], self._hashes[:]
        return other

    def clear(self) -> None:
        """Forget everything."""
        self.sent = None
        self._truncate(0)

    def _with(self, more: Sequence[PromptPiece]) -> int:
        for message in more:
            self._append(message)
        return len(self._tokens) + 1  # and the marker that opens the reply

    def _append(self, message: PromptPiece) -> None:
        self._tokens.append(marker(message.role))
        self._tokens.extend(message.tokens())
        self._tokens.append(END_OF_MESSAGE)
        self._messages.append(message.fingerprint)
        self._ends.append(len(self._tokens))
        extend_hashes(self._hashes, self._tokens, self._block_size, self._root)

    def _truncate(self, num_messages: int) -> None:
        del self._messages[num_messages:], self._ends[num_messages:]
        del self._digests[num_messages:]
        del self._tokens[self._ends[-1] if self._ends else 0 :]
        del self._hashes[len(self._tokens) // self._block_size :]


def content_text(content: object, param: str) -> str:
    """Return the text of a message's content.

    Raises:
        InvalidRequestError: It is neither text nor a list of text parts; names ``param``.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequestError("expected text, or a list of text parts", param=param)
    texts = []
    for index, part in enumerate(content):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        else:
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise InvalidRequestError(
                f"the emulated model reads text only; found a part of type {kind!r}",
                param=f"{param}[{index}]",
            )
    return "".join(texts)


def _calls(message: dict[str, Any]) -> list[str]:
    """Return a message's tool calls as the model wrote them; what is no call, as JSON."""
    calls = message.get("tool_calls") or []
    return [_call(call) for call in calls] if isinstance(calls, list) else [_json(calls)]


def _call(call: object) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return _json(call)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return _as_written(function["name"], arguments)
    return tool_call_text(function["name"], _dumped(arguments))


@lru_cache(maxsize=CALLS_KNOWN)
def _as_written(name: str, arguments: str) -> str:
    """Return a call as the model wrote it; a conversation's come again with every turn of it.

    Clients write JSON with other spaces than the model did. Chat templates get it parsed, and write
    it as the model does.
    """
    try:
        value = json.loads(arguments)
        written = value if isinstance(value, str) else _dumped(value)
    except (ValueError, RecursionError):  # no JSON: it stays as it is
        return tool_call_text(name, arguments)
    return tool_call_text(name, written)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(value: object) -> str:
    if isinstance(value, str):  # every tool message has an id, and json.dumps makes an encoder
        return encode_basestring_ascii(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
