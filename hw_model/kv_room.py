"""Makes a chip hold the KV that an engine on it says it has."""

from __future__ import annotations

from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import HBM_UTILIZATION, Deployment, MemoryBudget
from hw_model.specs import ChipSpec

LARGEST_REST = 0.25
"""What an engine may leave unused of its memory; more means that the chip's size is another."""


def with_kv_blocks(deployment: Deployment, num_blocks: int, *, source: str) -> ChipSpec:
    """Return the deployment's chip such that as many KV blocks fit as were seen.

    What weights and KV leave of the HBM goes to activations; where that is no sensible share, the
    engine was given another size of memory, and the chip gets that.

    Args:
        deployment: Of one replica, with blocks of the engine's size.
        num_blocks: >= 1.
        source: Of the claim that moves.
    """
    chip = deployment.chip
    budget = MemoryBudget(chip, deployment.model, Band.BASE, max_num_seqs=0)
    block_bytes = deployment.kv_bytes_per_token * deployment.block_size_tokens
    # Half a block on top, so that rounding takes none away.
    kv_bytes = (num_blocks + 0.5) * block_bytes + deployment.weight_bytes_per_chip
    rest_bytes = budget.usable_bytes - kv_bytes
    if 0 < rest_bytes <= LARGEST_REST * budget.usable_bytes:
        field, value = "activation_bytes", rest_bytes
    else:
        field = "hbm_bytes"
        value = (kv_bytes + chip.activation_bytes.value) / HBM_UTILIZATION
    claim = Claim(value=value, source=source, trust=Trust.MEASURED)
    return chip.model_copy(update={field: claim})
