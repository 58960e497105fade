"""The hardware numbers a result rests on, in units people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent_runtime.measurement.summary import Assumption
from hw_model.claim import Band, Claim
from hw_model.specs import ChipSpec, RackSpec

_DISPLAY: dict[str, tuple[str, float, str]] = {
    "num_chips": ("chips in the rack", 1, ""),
    "domain_chips": ("chips in one switched domain", 1, ""),
    "hbm_bytes": ("HBM a chip", 1e9, "GB"),
    "hbm_bytes_per_s": ("HBM bandwidth", 1e12, "TB/s"),
    "bf16_flops_per_s": ("peak BF16", 1e12, "TFLOPS"),
    "fp8_flops_per_s": ("peak FP8", 1e12, "TFLOPS"),
    "int8_flops_per_s": ("peak INT8", 1e12, "TOPS"),
    "fp4_flops_per_s": ("peak FP4", 1e12, "TFLOPS"),
    "gemm_efficiency": ("share of peak FLOPS reached", 0.01, "%"),
    "expert_gemm_flops_per_s": ("reached with experts", 1e12, "TFLOPS"),
    "attention_efficiency": ("share of peak BF16 reached in attention", 0.01, "%"),
    "hbm_efficiency": ("share of HBM bandwidth reached", 0.01, "%"),
    "kv_read_efficiency": ("share of HBM bandwidth reached on KV", 0.01, "%"),
    "fp4_kernel_efficiency": ("FP4 kernels against wider ones", 0.01, "%"),
    "link_bytes_per_s": ("scale-up bandwidth, one direction", 1e9, "GB/s"),
    "host_link_bytes_per_s": ("to host memory, one direction", 1e9, "GB/s"),
    "all_reduce_latency_s": ("small all-reduce", 1e-6, "us"),
    "layer_overhead_s": ("overhead a layer and step", 1e-6, "us"),
    "expert_layer_overhead_s": ("overhead a layer with experts, on top", 1e-6, "us"),
    "prefill_layer_overhead_s": ("least a layer in a step with a prompt", 1e-6, "us"),
    "step_overhead_s": ("host time a step", 1e-3, "ms"),
    "sequence_overhead_s": ("host time a sequence and step", 1e-6, "us"),
    "request_overhead_s": ("host time a request", 1e-3, "ms"),
    "front_end_overhead_s": ("a request's way to the engine", 1e-3, "ms"),
    "front_end_token_overhead_s": ("a prompt token's way to the engine", 1e-6, "us"),
    "activation_bytes": ("HBM for activations", 1e9, "GB"),
}
"""Field -> what a reader calls it, what to divide by, the unit that is left."""


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A claim as shown, and the field it is of."""

    field: str
    assumption: Assumption


def assumptions(rack: RackSpec, chip: ChipSpec) -> tuple[Assumption, ...]:
    """Return every claim about a rack and its chip, ready to show."""
    claims = {"num_chips": rack.num_chips, "domain_chips": rack.domain_chips, **chip.claims()}
    if rack.link_bytes_per_s is not None:
        claims["link_bytes_per_s"] = rack.link_bytes_per_s
    return tuple(row.assumption for row in claim_rows(claims))


def claim_rows(claims: Mapping[str, Claim]) -> tuple[ClaimRow, ...]:
    """Return claims ready to show, in their order."""
    return tuple(ClaimRow(field, _assumption(field, claim)) for field, claim in claims.items())


def _assumption(field: str, claim: Claim) -> Assumption:
    name, divisor, unit = _DISPLAY[field]
    low, base, high = (f"{claim.at(band) / divisor:.4g}" for band in Band)
    return Assumption(
        name=name,
        low=low,
        base=base,
        high=high,
        unit=unit,
        source=claim.source,
        trust=claim.trust.value,
    )
