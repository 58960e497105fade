"""The bytes that a prompt was read from, by which it is known when more of it comes."""

from __future__ import annotations

from typing import Self

import msgspec


class SentPrompt(msgspec.Struct, frozen=True):
    """The messages of a prompt as they were sent, piece after piece, each turn's one.

    Attributes:
        ends: Of each piece, in bytes from the beginning.
        fingerprints: Of each: Python's own hash, with a key that nobody outside knows.
        tools: That of the tool definitions.
    """

    ends: tuple[int, ...]
    fingerprints: tuple[int, ...]
    tools: int

    @classmethod
    def first(cls, messages: bytes, end: int, tools: bytes) -> Self:
        """Return what stands for the first so many bytes, in one piece."""
        return cls((end,), (hash(memoryview(messages)[:end]),), hash(tools))

    @property
    def num_bytes(self) -> int:
        """How many bytes of messages it stands for."""
        return self.ends[-1]

    def leads(self, messages: bytes, tools: bytes) -> bool:
        """Return whether a prompt begins with it; to find out takes a hash of so many bytes."""
        if len(messages) <= self.num_bytes or hash(tools) != self.tools:
            return False
        view, begin = memoryview(messages), 0
        for end, fingerprint in zip(self.ends, self.fingerprints, strict=True):
            if hash(view[begin:end]) != fingerprint:
                return False
            begin = end
        return True

    def with_more(self, messages: bytes, end: int) -> Self:
        """Return what stands for more of a prompt that it leads: for its first so many bytes."""
        if end == self.num_bytes:
            return self
        more = hash(memoryview(messages)[self.num_bytes : end])
        return type(self)((*self.ends, end), (*self.fingerprints, more), self.tools)
