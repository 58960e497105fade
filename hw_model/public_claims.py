"""What is said in public about the M890, held against the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import HBM_UTILIZATION
from hw_model.specs import Precision

TOLERANCE = 0.05
"""How near a ratio must come to the one claimed."""


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A public claim and what comes of it.

    Attributes:
        claim: What is said.
        reading: How it is read here.
        result: What the catalog's numbers make of it.
        holds: Whether it is true under that reading.
    """

    claim: str
    reading: str
    result: str
    holds: bool


def checked_claims(catalog: Catalog) -> tuple[CheckedClaim, ...]:
    """Return every public claim that can be checked, one entry a reading.

    Source: Alibaba Cloud Summit, 2026-05-20, and the press on it; docs/hardware.md.
    """
    return (_memory(catalog), _fabric(catalog), *_full_precision(catalog), *_three_times(catalog))


def _memory(catalog: Catalog) -> CheckedClaim:
    new, old = (catalog.chip(name).hbm_bytes.value for name in ("m890", "zhenwu-810e"))
    more = new / old - 1
    return CheckedClaim(
        claim="50 % more memory than the 810E",
        reading="capacity of one chip",
        result=f"{new / 1e9:.0f} GB against {old / 1e9:.0f} GB: {more:+.0%}",
        holds=round(more, 2) >= 0.5,  # noqa: PLR2004 - the claim's number
    )


def _fabric(catalog: Catalog) -> CheckedClaim:
    new, old = (catalog.chip(name).link_bytes_per_s.value for name in ("m890", "zhenwu-810e"))
    return CheckedClaim(
        claim="800 GB/s of interconnect, up from 700",
        reading="8 links against 7, the same 50 GB/s each way; all-reduces get 66 % of that",
        result=f"{new / 1e9:.0f} GB/s against {old / 1e9:.0f} GB/s one way: {new / old - 1:+.1%}",
        holds=round(new / old, 2) >= round(800 / 700, 2),
    )


def _full_precision(catalog: Catalog) -> tuple[CheckedClaim, CheckedClaim]:
    chip, model = catalog.chip("m890"), catalog.model("llama-3.1-70b")
    weights = model.weight_bytes(Precision.BF16)
    kv_bytes = model.kv_bytes_per_token(1, Precision.BF16)
    left = chip.hbm_bytes.value - weights
    usable_left = (
        chip.hbm_bytes.value * HBM_UTILIZATION - chip.activation_bytes.at(Band.BASE) - weights
    )
    claim = "a 70B model in full precision fits one chip"
    return (
        CheckedClaim(
            claim=claim,
            reading="BF16 weights of Llama-3.1-70B in all of the HBM",
            result=f"{weights / 1e9:.1f} GB of {chip.hbm_bytes.value / 1e9:.0f} GB; room for "
            f"{max(0, int(left / kv_bytes)):,} tokens of KV and for nothing else",
            holds=left > 0,
        ),
        CheckedClaim(
            claim=claim,
            reading=f"served: {HBM_UTILIZATION:.0%} of the HBM, activations and KV beside weights",
            result=f"{usable_left / 1e9:+.1f} GB are left for KV: not on one chip in BF16",
            holds=usable_left > 0,
        ),
    )


def _three_times(catalog: Catalog) -> tuple[CheckedClaim, ...]:
    bf16 = catalog.chip("m890").bf16_flops_per_s
    claim = "three times the performance"
    own, h20 = catalog.chip("zhenwu-810e"), catalog.chip("h20")
    readings = [
        CheckedClaim(
            claim=claim,
            reading=f"peak BF16 over the {other.title} ({whose})",
            result=f"would be {3 * other.bf16_flops_per_s.value / 1e12:.0f} TFLOPS; the band here "
            f"is {bf16.at(Band.LOW) / 1e12:.0f} to {bf16.at(Band.HIGH) / 1e12:.0f}, its base "
            f"{bf16.value / other.bf16_flops_per_s.value:.1f} times",
            holds=abs(bf16.value / (3 * other.bf16_flops_per_s.value) - 1) < TOLERANCE,
        )
        for other, whose in ((own, "the vendor's baseline"), (h20, "a mutation of the press"))
    ]
    press = bf16.at(Band.HIGH) / own.bf16_flops_per_s.value
    readings.append(
        CheckedClaim(
            claim=claim,
            reading="the 0.6 PFLOPS that circulate, over the 810E",
            result=f"{press:.1f} times, not three; no primary source",
            holds=False,
        )
    )
    return tuple(readings)
