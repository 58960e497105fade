"""KV events on the wire: vLLM's forms both ways, and nothing that is not one gets in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.backends.kv_event_wire import (
    MAX_EVENTS,
    MAX_PAYLOAD_BYTES,
    AllCleared,
    BlockRemoved,
    BlockStored,
    EventBatch,
    StoredContent,
    decode_batch,
    encode_batch,
    frames,
    parse_frames,
    wire_events,
)
from agent_runtime.errors import WireFormatError
from hw_model.engine.kv_events import KvEventLog, Medium

VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")
STORED = BlockStored([1, 2], None, [5, 6, 7, 8], 2, None, "GPU", None, group_idx=0, session_id="a")

hashes = st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=32))
stored = st.builds(
    BlockStored,
    block_hashes=st.lists(hashes, max_size=4),
    parent_block_hash=st.none() | hashes,
    token_ids=st.lists(st.integers(0, 2**31), max_size=8),
    block_size=st.integers(1, 256),
    lora_id=st.none() | st.integers(0, 9),
    medium=st.none() | st.sampled_from(["GPU", "CPU", "STORAGE"]),
    lora_name=st.none() | st.text(max_size=4),
    session_id=st.none() | st.text(max_size=8),
)
removed = st.builds(
    BlockRemoved, block_hashes=st.lists(hashes, max_size=4), medium=st.none() | st.just("CPU")
)
batches = st.builds(
    EventBatch,
    ts=st.floats(0, 1e10),
    events=st.lists(stored | removed | st.just(AllCleared()), max_size=6),
    data_parallel_rank=st.none() | st.integers(0, 63),
)


@given(batches, st.text(max_size=10), st.integers(-1, 2**40))
def test_what_is_written_is_read(batch: EventBatch, topic: str, sequence: int) -> None:
    assert parse_frames(frames(topic, sequence, batch)) == (topic, sequence, batch)


def test_the_older_form_is_read_too() -> None:
    older = [
        2.5,
        [
            ["BlockStored", [1, 2], None, [5, 6, 7, 8], 2, None, "GPU"],
            ["BlockStored", [3], 2, [9, 9], 2],
            ["BlockRemoved", [b"\x01"]],
            ["AllBlocksCleared"],
        ],
    ]
    batch = decode_batch(msgspec.msgpack.encode(older))
    assert batch == EventBatch(
        2.5,
        [
            BlockStored([1, 2], None, [5, 6, 7, 8], 2, None, "GPU", None),
            BlockStored([3], 2, [9, 9], 2, None, None, None),
            BlockRemoved([b"\x01"], None),
            AllCleared(),
        ],
    )


def test_fields_of_a_later_engine_are_passed_over() -> None:
    event = {"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU", "colour": "red"}
    assert decode_batch(msgspec.msgpack.encode([1.0, [event]])).events == [BlockRemoved([1], "GPU")]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not a KV event batch"),
        (b"\xc1\xc1", "not a KV event batch"),
        (msgspec.msgpack.encode({"ts": 1}), "not a KV event batch"),
        (msgspec.msgpack.encode([1.0, [["Stored", [1]]]]), "of type 'Stored'"),
        (msgspec.msgpack.encode([1.0, [[]]]), "of type None"),
        (msgspec.msgpack.encode([1.0, [["BlockStored", "x", None, [], 2]]]), "a BlockStored event"),
        (msgspec.msgpack.encode([1.0, [["AllBlocksCleared", 1]]]), "at most 0 are known"),
        (msgspec.msgpack.encode([1.0, [["AllBlocksCleared"]] * (MAX_EVENTS + 1)]), "at most 4,096"),
        (b"\x91" * 100_000, "not a KV event batch"),
        (bytes(MAX_PAYLOAD_BYTES + 1), "at most 16,777,216 are read"),
    ],
)
def test_what_is_no_batch_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(WireFormatError, match=message):
        decode_batch(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_refused(payload: bytes) -> None:
    try:
        batch = decode_batch(payload)
    except WireFormatError:
        return
    assert decode_batch(encode_batch(batch)) == batch


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ([b"topic", b"\x00" * 8], "of 2 frames; expected 3"),
        ([b"topic", b"\x00", b""], "of 1 bytes; expected 8"),
        ([b"\xff", b"\x00" * 8, encode_batch(EventBatch(1.0, []))], "not UTF-8"),
    ],
)
def test_a_message_of_the_wrong_shape_is_refused(message: list[bytes], problem: str) -> None:
    with pytest.raises(WireFormatError, match=problem):
        parse_frames(message)


def test_an_emulated_engine_speaks_as_vllm_does() -> None:
    log = KvEventLog()
    log.stored([1, -1], None)
    log.removed([7, 8], Medium.CPU)
    log.cleared()
    content = StoredContent([5, 6, 7, 8], "a")
    events = list(wire_events(log.take(), block_size_tokens=2, content_of=lambda _: content))
    assert events == [
        BlockStored(
            [1, 2**64 - 1],
            None,
            [5, 6, 7, 8],
            2,
            None,
            "GPU",
            None,
            group_idx=0,
            session_id="a",
        ),
        BlockRemoved([7], "CPU", group_idx=0),
        BlockRemoved([8], "CPU", group_idx=0),
        AllCleared(),
    ]


@pytest.mark.skipif(VLLM_PYTHON is None, reason="needs a venv with vLLM: make test-vllm")
def test_live_vllm_reads_what_we_write_and_we_what_it_writes() -> None:
    ours = encode_batch(EventBatch(1.5, [STORED, BlockRemoved([1], "GPU", group_idx=0)], 0))
    script = Path(__file__).parent / "vllm" / "kv_event_bytes.py"
    done = subprocess.run(
        [str(VLLM_PYTHON), str(script), ours.hex()], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("panjiu:")]
    assert said, done.stderr[-2000:]
    _, again, theirs = said[0].split()
    assert decode_batch(bytes.fromhex(again)) == decode_batch(ours)
    assert decode_batch(bytes.fromhex(theirs)) == EventBatch(
        1.5,
        [
            BlockStored(
                [1, 2**64 - 1],
                None,
                [5, 6, 7, 8],
                2,
                None,
                "GPU",
                None,
                group_idx=0,
                session_id="agent-1",
            ),
            BlockRemoved([1], "GPU", group_idx=0),
            AllCleared(),
        ],
        3,
    )
