"""Carries out the scheduler's KV commands on emulated replicas."""

from __future__ import annotations

from collections.abc import Sequence

from hw_model.engine.engine_core import EngineCore
from scheduler.commands import Drop, KvCommand, Pull, Release, Retain


def carry_out(
    command: KvCommand, block_hashes: Sequence[int], engines: Sequence[EngineCore], now_s: float
) -> None:
    """Carry out one command.

    Args:
        command: Of the scheduler.
        block_hashes: Of the latest context of the session it names.
        engines: Of all replicas.
        now_s: Now.
    """
    residency = engines[command.replica_id].residency
    key = command.session_id
    match command:
        case Retain():
            residency.retain(key, block_hashes, now_s)
        case Release():
            residency.release(key, now_s)
        case Drop():
            residency.release(key, now_s)
            residency.forget(block_hashes, now_s)
        case Pull():
            source = engines[command.source_id].residency
            there = source.num_cached(block_hashes)
            residency.pull(key, block_hashes[:there], command.ready_s, now_s)
