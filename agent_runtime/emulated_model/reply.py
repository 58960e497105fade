"""A reply: what is said, cut to what the caller allows, and handed out as its tokens are released.

What is said is one text, tool calls included, as the model would write it (``tool_call_text``). The
caller sees it in pieces of content and of calls; sent back, they make that text again.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent_runtime.emulated_model.reply_limits import ReplyLimits
from agent_runtime.emulated_model.tokenised_text import TokenisedText, tokenised
from agent_runtime.prompts.tokeniser import marker
from agent_runtime.prompts.tool_call_text import CALL_END, SEPARATOR, announcement

SILENT_TOKEN = marker("end of text")
"""What a model goes on with that has said everything and may not stop; it has no text."""


class PieceKind(Enum):
    """What a stretch of the text is for the caller."""

    CONTENT = "content"
    CALL = "call"
    ARGUMENTS = "arguments"
    MARKUP = "markup"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one tool.

    Attributes:
        call_id: Unique in its conversation.
        name: Of the tool.
        arguments: JSON.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text, from where the one before it ended.

    Attributes:
        kind: What it is.
        end: Where it ends, in characters.
        call: Which call it belongs to.
    """

    kind: PieceKind
    end: int
    call: int = 0


@dataclass(frozen=True, slots=True)
class Speech:
    """All that the model wants to say.

    Attributes:
        said: The text as it is generated.
        segments: Cover ``said.text``.
        calls: What ``Segment.call`` counts.
        forced: Whether the caller named the one tool: such calls end as text does, with ``stop``.
    """

    said: TokenisedText
    segments: tuple[Segment, ...]
    calls: tuple[ToolCall, ...] = ()
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What the caller sees of new tokens; a ``CALL`` has no text, it announces a call."""

    kind: PieceKind
    text: str
    call: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A speech with its end.

    Attributes:
        speech: What would be said.
        tokens: What is generated of it, silent tokens included; at least one.
        ends: Per token where its text ends, in characters.
        text_end: Up to where the text is shown: a stop string is not.
        finish_reason: As the wire has it: ``stop``, ``length`` or ``tool_calls``.
        stop_reason: The stop string that ended it, or None.
    """

    speech: Speech
    tokens: array[int]
    ends: array[int]
    text_end: int
    finish_reason: str
    stop_reason: str | None

    @property
    def num_tokens(self) -> int:
        """Tokens generated."""
        return len(self.tokens)

    def token_text(self, position: int) -> str:
        """Return the text of one token."""
        start = self.ends[position - 1] if position else 0
        return self.speech.said.text[start : self.ends[position]]

    def message(self) -> dict[str, Any]:
        """Return the whole message: ``role``, ``content`` and, if there are any, ``tool_calls``."""
        contents: list[str] = []
        arguments: dict[int, str] = {}
        for piece in ReplyReader(self).take(self.num_tokens):
            if piece.kind is PieceKind.CONTENT:
                contents.append(piece.text)
            else:
                arguments[piece.call] = arguments.get(piece.call, "") + piece.text
        content = "".join(contents)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if arguments:
            calls = self.speech.calls
            message["content"] = content or None
            message["tool_calls"] = [
                {
                    "id": calls[index].call_id,
                    "type": "function",
                    "function": {"name": calls[index].name, "arguments": text},
                }
                for index, text in arguments.items()
            ]
        return message


class ReplyReader:
    """Hands a reply out piece by piece; joined, the pieces are the message."""

    __slots__ = ("_at", "_num_tokens", "_reply", "_segment")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._num_tokens = self._at = self._segment = 0

    def take(self, num_tokens: int) -> list[Piece]:
        """Return what the next ``num_tokens`` tokens show; nothing if they are markup."""
        reply = self._reply
        self._num_tokens += num_tokens
        until = min(reply.ends[self._num_tokens - 1], reply.text_end)
        pieces = []
        while self._at < until:
            segment = reply.speech.segments[self._segment]
            end = min(segment.end, until)
            if segment.kind in _SHOWN:
                text = reply.speech.said.text[self._at : end]
                pieces.append(Piece(segment.kind, text, segment.call))
            elif segment.kind is PieceKind.CALL and end == segment.end:
                pieces.append(Piece(PieceKind.CALL, "", segment.call))
            self._segment += end == segment.end
            self._at = end
        return pieces


_SHOWN = (PieceKind.CONTENT, PieceKind.ARGUMENTS)


def text_speech(said: TokenisedText) -> Speech:
    """Return a speech that is text alone."""
    return Speech(said, (Segment(PieceKind.CONTENT, len(said.text)),))


def calls_text(calls: tuple[ToolCall, ...]) -> TokenisedText:
    """Return the calls as they are written, one after the other."""
    return tokenised(
        SEPARATOR.join(announcement(call.name) + call.arguments + CALL_END for call in calls)
    )


def calling_speech(
    calls: tuple[ToolCall, ...], content: TokenisedText | None = None, *, forced: bool = False
) -> Speech:
    """Return a speech of calls, with text before them or not."""
    said = calls_text(calls)
    segments: list[Segment] = []
    at = 0
    if content is not None and content.text:
        at = len(content.text)
        segments.append(Segment(PieceKind.CONTENT, at))
        said = content.followed_by(SEPARATOR + said.text)
    for index, call in enumerate(calls):
        if at:
            at += len(SEPARATOR)
            segments.append(Segment(PieceKind.MARKUP, at))
        for kind, length in (
            (PieceKind.CALL, len(announcement(call.name))),
            (PieceKind.ARGUMENTS, len(call.arguments)),
            (PieceKind.MARKUP, len(CALL_END)),
        ):
            at += length
            segments.append(Segment(kind, at, index))
    return Speech(said, tuple(segments), calls, forced)


@dataclass(frozen=True, slots=True)
class StopStrings:
    """What ends a reply when it is said.

    Attributes:
        strings: Any of them.
        shown: Whether the string itself is shown.
    """

    strings: tuple[str, ...] = ()
    shown: bool = False


NO_STOPS = StopStrings()


def cut_reply(speech: Speech, limits: ReplyLimits, stops: StopStrings) -> Reply:
    """End a speech where the caller's limits and stop strings say.

    As in vLLM, stop strings are looked for in all that is generated, tool calls included, but not
    in the first ``min_tokens`` tokens; the token that completes one is generated and counted.
    """
    said = speech.said
    num_tokens = min(max(said.num_tokens, limits.fewest), limits.cap)
    tokens, ends = said.tokens[:num_tokens], said.ends[:num_tokens]
    num_silent = num_tokens - len(tokens)
    tokens.extend([SILENT_TOKEN] * num_silent)
    ends.extend([len(said.text)] * num_silent)
    found = _first_stop(said.text, ends, stops.strings, limits.min_tokens)
    if found is not None:
        start, stop = found
        end = start + len(stop)
        num_tokens = _num_tokens_to(ends, end)
        text_end = end if stops.shown else start
        return Reply(speech, tokens[:num_tokens], ends[:num_tokens], text_end, "stop", stop)
    complete = num_tokens >= said.num_tokens
    if complete and speech.calls and not speech.forced:
        reason = "tool_calls"
    else:
        endless = limits.ignore_eos and limits.max_tokens is not None
        reason = "stop" if complete and not endless else "length"
    return Reply(speech, tokens, ends, len(said.text), reason, None)


def _first_stop(
    text: str, ends: array[int], stops: tuple[str, ...], min_tokens: int
) -> tuple[int, str] | None:
    """Return where the stop string begins that is completed first, and which it is."""
    if not stops or len(ends) <= min_tokens:
        return None
    unwatched = ends[min_tokens - 1] if min_tokens else 0
    found: tuple[int, str] | None = None
    generated = ends[-1]
    for stop in stops:
        start = text.find(stop, max(0, unwatched - len(stop) + 1), generated)
        if start >= 0 and (found is None or start + len(stop) < found[0] + len(found[1])):
            found = start, stop
    return found


def _num_tokens_to(ends: array[int], position: int) -> int:
    """Return how many tokens it takes to reach a character position."""
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if ends[middle] < position else (low, middle)
    return low + 1
