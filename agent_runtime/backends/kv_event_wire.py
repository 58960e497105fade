"""KV events as vLLM sends them: three ZMQ frames, the last of them MessagePack.

Frames are topic, sequence number (eight bytes, big-endian) and payload. The payload is an array
``[time, [event, ...], data-parallel rank]``. Since vLLM 0.32 events are maps with a ``type``; older
engines send arrays that begin with it. Both are read, the newer one is written.

Hashes from the wire are opaque keys: how an engine made them is its own business. ``token_ids`` say
what a block holds.

Source: vLLM 0.32, ``vllm/distributed/kv_events.py``; the limits are those of vllm-router.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from agent_runtime.errors import WireFormatError
from agent_runtime.undecodable import UNDECODABLE
from hw_model.engine.kv_events import AllBlocksCleared, BlocksRemoved, BlocksStored, KvEvent

MAX_PAYLOAD_BYTES = 16 << 20
MAX_EVENTS = 4_096
SEQUENCE_BYTES = 8
_INT_HASH_MASK = (1 << 64) - 1

WireHash: TypeAlias = int | bytes
"""An engine's name for a block."""


class BlockStored(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """Consecutive blocks of one chain became findable on an engine.

    Attributes:
        parent_block_hash: Of the block before the first; None at a chain's start.
        token_ids: Of all the blocks, in order; an emulated engine may not know them.
        medium: ``GPU``, ``CPU``, ``STORAGE``, or None from engines that don't say.
        session_id: Whose request stored them, where the client named a session.
    """

    block_hashes: list[WireHash]
    parent_block_hash: WireHash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[Any] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    ownership: str | None = None
    session_id: str | None = None


class BlockRemoved(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """An engine gave blocks up."""

    block_hashes: list[WireHash]
    medium: str | None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


class AllCleared(msgspec.Struct, frozen=True, tag="AllBlocksCleared"):
    """An engine emptied its prefix cache."""


WireEvent: TypeAlias = BlockStored | BlockRemoved | AllCleared


class EventBatch(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What an engine published at once.

    Attributes:
        ts: The engine's clock, seconds.
    """

    ts: float
    events: list[WireEvent]
    data_parallel_rank: int | None = None


class _OlderBatch(msgspec.Struct, array_like=True):
    ts: float
    events: list[list[Any]]
    data_parallel_rank: int | None = None


_ENCODER = msgspec.msgpack.Encoder()
_BATCHES = msgspec.msgpack.Decoder(EventBatch)
_OLDER_BATCHES = msgspec.msgpack.Decoder(_OlderBatch)
_OLDER_FIELDS: dict[str, tuple[type[WireEvent], tuple[str, ...]]] = {
    "BlockStored": (BlockStored, BlockStored.__struct_fields__),
    "BlockRemoved": (BlockRemoved, BlockRemoved.__struct_fields__),
    "AllBlocksCleared": (AllCleared, ()),
}


def encode_batch(batch: EventBatch) -> bytes:
    """Return the payload frame of a batch."""
    return _ENCODER.encode(batch)


def decode_batch(payload: bytes) -> EventBatch:
    """Return a payload frame as a batch, whichever form its events have.

    Raises:
        WireFormatError: Not MessagePack, not a batch, or beyond the limits; nothing is kept of it.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise WireFormatError(
            f"a KV event batch of {len(payload):,} bytes; at most {MAX_PAYLOAD_BYTES:,} are read"
        )
    try:
        batch = _BATCHES.decode(payload)
    except UNDECODABLE as error:
        batch = _decode_older(payload, error)
    if len(batch.events) > MAX_EVENTS:
        raise WireFormatError(
            f"a KV event batch of {len(batch.events):,} events; at most {MAX_EVENTS:,} are read"
        )
    return batch


def frames(topic: str, sequence: int, batch: EventBatch) -> list[bytes]:
    """Return the three frames of a message; sequence numbers count up from 0."""
    number = sequence.to_bytes(SEQUENCE_BYTES, "big", signed=True)
    return [topic.encode(), number, encode_batch(batch)]


def parse_frames(message: Sequence[bytes]) -> tuple[str, int, EventBatch]:
    """Return topic, sequence number and batch of a message.

    Raises:
        WireFormatError: Not three frames, or one of them is not what it should be.
    """
    if len(message) != 3:  # noqa: PLR2004 - topic, number, payload
        raise WireFormatError(f"a KV event message of {len(message)} frames; expected 3")
    topic, number, payload = message
    if len(number) != SEQUENCE_BYTES:
        raise WireFormatError(
            f"a sequence number of {len(number)} bytes; expected {SEQUENCE_BYTES}"
        )
    try:
        name = topic.decode()
    except UnicodeDecodeError:
        raise WireFormatError("a topic that is not UTF-8") from None
    return name, int.from_bytes(number, "big", signed=True), decode_batch(payload)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What an emulated engine's stored blocks hold.

    Attributes:
        token_ids: Of all the blocks, in order.
        session_id: Whose request stored them, where the client named a session.
        salt: That their request came with, if the first block of all is among them.
    """

    token_ids: Sequence[int] = ()
    session_id: str | None = None
    salt: str | None = None


NOT_KNOWN = StoredContent()


def wire_events(
    events: Iterable[KvEvent],
    *,
    block_size_tokens: int,
    content_of: Callable[[BlocksStored], StoredContent] = lambda _: NOT_KNOWN,
) -> Iterator[WireEvent]:
    """Yield what an emulated engine noted as vLLM would send it: one event a removed block.

    Args:
        events: From a ``KvEventLog``.
        block_size_tokens: Of the engine.
        content_of: What stored blocks hold; by default that is not known.
    """
    for event in events:
        match event:
            case BlocksStored(hashes=hashes, parent_hash=parent_hash, medium=medium):
                content = content_of(event)
                extra: list[Any] | None = None
                if content.salt is not None:  # vLLM has it with the first block alone
                    extra = [(content.salt,), *[None] * (len(hashes) - 1)]
                yield BlockStored(
                    block_hashes=[block_hash & _INT_HASH_MASK for block_hash in hashes],
                    parent_block_hash=None if parent_hash is None else parent_hash & _INT_HASH_MASK,
                    token_ids=list(content.token_ids),
                    block_size=block_size_tokens,
                    lora_id=None,
                    medium=medium.value,
                    lora_name=None,
                    extra_keys=extra,
                    group_idx=0,
                    session_id=content.session_id,
                )
            case BlocksRemoved(hashes=hashes, medium=medium):
                for block_hash in hashes:
                    yield BlockRemoved([block_hash & _INT_HASH_MASK], medium.value, group_idx=0)
            case AllBlocksCleared():
                yield AllCleared()


def _decode_older(payload: bytes, reason: Exception) -> EventBatch:
    try:
        older = _OLDER_BATCHES.decode(payload)
        events = [_older_event(values) for values in older.events]
    except UNDECODABLE:
        raise WireFormatError(f"not a KV event batch: {reason}") from None
    return EventBatch(older.ts, events, older.data_parallel_rank)


def _older_event(values: list[Any]) -> WireEvent:
    kind, *rest = values or [None]
    if not isinstance(kind, str) or kind not in _OLDER_FIELDS:
        raise WireFormatError(f"a KV event of type {kind!r}; known: {', '.join(_OLDER_FIELDS)}")
    struct, names = _OLDER_FIELDS[kind]
    if len(rest) > len(names):
        raise WireFormatError(
            f"a {kind} event of {len(rest)} values; at most {len(names)} are known"
        )
    optional = {name: None for name in ("lora_id", "medium", "lora_name") if name in names}
    fields = optional | dict(zip(names, rest, strict=False))
    try:
        event: WireEvent = msgspec.convert(fields | {"type": kind}, struct, strict=True)
    except msgspec.ValidationError as error:
        raise WireFormatError(f"a {kind} event: {error}") from None
    return event
