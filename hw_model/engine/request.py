"""One request inside an engine."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NewType

from hw_model.engine.block_run import BlockTable

RequestId = NewType("RequestId", str)


class RequestStatus(Enum):
    """Where a request stands; vLLM's words."""

    WAITING = auto()
    RUNNING = auto()
    PREEMPTED = auto()
    FINISHED = auto()


class EngineRequest:
    """A prompt to compute and tokens to generate. The engine alone changes its state.

    Args:
        request_id: Unique in the engine.
        num_prompt_tokens: >= 1.
        num_output_tokens: Tokens after which it stops, >= 1.
        block_hashes: Chained hashes of the leading full blocks of prompt + output; blocks beyond
            them are computed but can't be found by later requests.
        priority: Smaller is more urgent; looked at under the PRIORITY policy only.
        streams: Whether each of its tokens is wanted when it is ready. While such a request is in
            an engine, the engine takes single steps.

    Attributes:
        num_computed_tokens: Tokens with KV, those of steps scheduled and not yet done included.
        num_output_placeholders: Tokens that scheduled steps will sample.
        num_in_flight_tokens: Tokens that scheduled steps compute.
        num_stale_tokens: Those of them that were scheduled before the last preemption.

    The last three are kept with async scheduling only; else no step is scheduled while another one
    is under way.

    Invariant: ``num_computed_tokens <= num_tokens + num_output_placeholders``, and the table holds
        blocks for at least the computed tokens.
    """

    __slots__ = (
        "arrival_order",
        "block_hashes",
        "num_cached_tokens",
        "num_committed_blocks",
        "num_computed_tokens",
        "num_generated_tokens",
        "num_in_flight_tokens",
        "num_lost_tokens",
        "num_output_placeholders",
        "num_output_tokens",
        "num_preemptions",
        "num_prompt_tokens",
        "num_stale_tokens",
        "priority",
        "request_id",
        "status",
        "streams",
        "table",
    )

    def __init__(
        self,
        request_id: RequestId,
        num_prompt_tokens: int,
        num_output_tokens: int,
        block_hashes: Sequence[int],
        priority: int = 0,
        *,
        streams: bool = False,
    ) -> None:
        self.request_id = request_id
        self.num_prompt_tokens = num_prompt_tokens
        self.num_output_tokens = num_output_tokens
        self.block_hashes = block_hashes
        self.priority = priority
        self.streams = streams
        self.arrival_order = 0  # set by the scheduler, unique in it
        self.status = RequestStatus.WAITING
        self.table = BlockTable(owner=request_id)
        self.num_computed_tokens = 0
        self.num_generated_tokens = 0
        self.num_output_placeholders = 0
        self.num_in_flight_tokens = 0
        self.num_stale_tokens = 0
        self.num_committed_blocks = 0
        self.num_cached_tokens: int | None = None  # prompt tokens hit at the first admission
        self.num_lost_tokens = 0  # computed tokens given up by the last preemption
        self.num_preemptions = 0

    @property
    def num_tokens(self) -> int:
        """Tokens known so far: the prompt and what has been generated."""
        return self.num_prompt_tokens + self.num_generated_tokens

    @property
    def is_decoding(self) -> bool:
        """Whether it has begun to generate and only its newest token is left to schedule."""
        generated = self.num_generated_tokens
        known = self.num_prompt_tokens + generated + self.num_output_placeholders
        return generated > 0 and known - self.num_computed_tokens == 1
