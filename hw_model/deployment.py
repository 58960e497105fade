"""How a model is laid out on a rack: replicas, tensor parallelism, and what is left for KV."""

from __future__ import annotations

from dataclasses import dataclass

from hw_model.claim import Band
from hw_model.errors import ConfigError, DoesNotFitError
from hw_model.parallelism import Parallelism, tp_degrees
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec

HBM_UTILIZATION = 0.9
"""Share of HBM an engine may take: vLLM's default ``gpu_memory_utilization``."""

GOOD_WEIGHT_SHARE = 0.5
"""The default TP degree is the smallest whose weights use at most this share of usable HBM."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model on one rack, every replica alike.

    Attributes:
        parallelism: How a replica is spread over chips.
        num_replicas: Replicas, all their chips <= those of the rack.
        kv_blocks: KV blocks of one replica.
        block_size_tokens: Tokens in a block.
        weight_bytes_per_chip: Weights on each chip.
        kv_bytes_per_token: KV of one token on each chip.
    """

    rack: RackSpec
    chip: ChipSpec
    model: ModelSpec
    precision: Precision
    kv_precision: Precision
    parallelism: Parallelism
    num_replicas: int
    kv_blocks: int
    block_size_tokens: int
    weight_bytes_per_chip: float
    kv_bytes_per_token: float

    @property
    def tp(self) -> int:
        """Chips in a replica's tensor-parallel group."""
        return self.parallelism.tp

    @property
    def num_chips(self) -> int:
        """Chips of all replicas."""
        return self.num_replicas * self.parallelism.num_chips

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV that one replica holds."""
        return self.kv_blocks * self.block_size_tokens

    def describe(self) -> str:
        """Return one line a person can read."""
        return (
            f"{self.num_replicas} replicas x {self.parallelism.describe()} on {self.num_chips} of "
            f"{self.rack.num_chips.value:.0f} chips, {self.precision} weights "
            f"({self.weight_bytes_per_chip / 1e9:.1f} GB a chip), {self.kv_precision} KV: "
            f"{self.kv_tokens:,} tokens a replica"
        )


@dataclass(frozen=True, slots=True)
class DeploymentRequest:
    """What to lay out; None lets the planner choose.

    Attributes:
        precision: Of the weights; by default FP8 where the chip has it, else BF16.
        kv_precision: Of the KV cache.
        tp: Chips in a TP group.
        pp, ep: Further parallelism, see :class:`Parallelism`.
        num_replicas: Replicas; by default as many as the rack holds.
        block_size_tokens: Tokens in a KV block.
        max_num_seqs: Sequences that run at once; linear attention keeps a state for each.
    """

    precision: Precision | None = None
    kv_precision: Precision = Precision.BF16
    tp: int | None = None
    pp: int = 1
    ep: int = 1
    num_replicas: int | None = None
    block_size_tokens: int = 64
    max_num_seqs: int = 256


def plan_deployment(
    rack: RackSpec,
    chip: ChipSpec,
    model: ModelSpec,
    request: DeploymentRequest,
    *,
    band: Band = Band.BASE,
) -> Deployment:
    """Lay ``model`` out on ``rack``.

    Returns:
        A deployment with at least one KV block a replica. With ``request.tp`` unset, TP is the
        smallest degree at which the weights use at most half of the usable HBM, or failing that the
        largest one a domain allows.

    Raises:
        ConfigError: A precision the chip lacks, a TP degree the rack or model can't do.
        DoesNotFitError: No room for weights and KV; says how many GB are missing and what fits.
    """
    precision = _choose_precision(chip, request.precision)
    budget = MemoryBudget(chip, model, band, request.max_num_seqs)
    domain_chips = int(min(rack.domain_chips.at(band), rack.num_chips.at(band)))
    degrees = tp_degrees(model, domain_chips)
    tp = request.tp or _default_tp(budget, precision, degrees)
    parallelism = Parallelism(tp, request.pp, request.ep)
    parallelism.check(model, domain_chips)
    kv_per_token = model.kv_bytes_per_token(tp, request.kv_precision) * _stage_share(
        model, parallelism
    )
    free_bytes = budget.free_bytes(precision, parallelism)
    kv_blocks = int(free_bytes // (kv_per_token * request.block_size_tokens))
    if kv_blocks < 1:
        raise DoesNotFitError(budget.explain(precision, parallelism, degrees))
    return Deployment(
        rack=rack,
        chip=chip,
        model=model,
        precision=precision,
        kv_precision=request.kv_precision,
        parallelism=parallelism,
        num_replicas=_choose_replicas(rack, request.num_replicas, parallelism, band),
        kv_blocks=kv_blocks,
        block_size_tokens=request.block_size_tokens,
        weight_bytes_per_chip=budget.weight_bytes(precision, parallelism),
        kv_bytes_per_token=kv_per_token,
    )


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What a model leaves of a chip's HBM.

    Attributes:
        max_num_seqs: Sequences whose recurrent state is kept, for models that have one.
    """

    chip: ChipSpec
    model: ModelSpec
    band: Band
    max_num_seqs: int

    @property
    def usable_bytes(self) -> float:
        """HBM of a chip that an engine may take."""
        return self.chip.hbm_bytes.at(self.band) * HBM_UTILIZATION

    def weight_bytes(self, precision: Precision, parallelism: Parallelism) -> float:
        """Return the weights on a chip of the fullest stage."""
        model = self.model
        experts = 0 if model.experts is None else model.experts.num_experts
        expert_bytes = experts * model.num_expert_params * precision.num_bytes
        other_bytes = model.weight_bytes(precision) - expert_bytes
        spread = other_bytes / parallelism.tp + expert_bytes / parallelism.expert_chips
        return spread * _stage_share(model, parallelism)

    def free_bytes(self, precision: Precision, parallelism: Parallelism) -> float:
        """Return bytes a chip has left for KV; negative when the rest alone is too large."""
        state_bytes = self.model.state_bytes_per_sequence() * self.max_num_seqs / parallelism.tp
        taken = self.chip.activation_bytes.at(self.band) + state_bytes * _stage_share(
            self.model, parallelism
        )
        return self.usable_bytes - taken - self.weight_bytes(precision, parallelism)

    def explain(self, precision: Precision, parallelism: Parallelism, tp_degrees: list[int]) -> str:
        """Return why the model does not fit, and which of the TP degrees alone would do."""
        missing_gb = max(0.1, -self.free_bytes(precision, parallelism) / 1e9)
        weights_gb = self.weight_bytes(precision, parallelism) / 1e9
        text = (
            f"{self.model.title} in {precision} does not fit {parallelism.describe()} on "
            f"{self.chip.title}: weights take {weights_gb:.1f} GB a chip and "
            f"{self.chip.activation_bytes.at(self.band) / 1e9:.0f} GB go to activations, of "
            f"{self.usable_bytes / 1e9:.1f} GB usable; {missing_gb:.1f} GB a chip are missing "
            "before any KV."
        )
        fitting = [
            f"{option} at TP{fit[0]}"
            for option in self.chip.precisions()
            if (fit := [tp for tp in tp_degrees if self.free_bytes(option, Parallelism(tp)) > 0])
        ]
        return f"{text} It would fit in {' or '.join(fitting) or 'nothing this rack has'}."


def _choose_precision(chip: ChipSpec, asked: Precision | None) -> Precision:
    if asked is None:
        return Precision.FP8 if chip.fp8_flops_per_s is not None else Precision.BF16
    if chip.flops_per_s(asked) is None:
        known = ", ".join(chip.precisions())
        raise ConfigError(
            f"{chip.title} does not compute with {asked} weights; use one of: {known}"
        )
    return asked


def _stage_share(model: ModelSpec, parallelism: Parallelism) -> float:
    """The fullest pipeline stage's share of the layers, and of all they hold."""
    return -(-model.num_layers // parallelism.pp) / model.num_layers


def _choose_replicas(
    rack: RackSpec, asked: int | None, parallelism: Parallelism, band: Band
) -> int:
    num_chips = int(rack.num_chips.at(band))
    group = parallelism.group_replicas
    most = num_chips // (parallelism.num_chips * group) * group
    if asked is None:
        return most
    if not 1 <= asked <= most:
        raise ConfigError(
            f"{asked} replicas x {parallelism.describe()} need {asked * parallelism.num_chips} "
            f"chips; {rack.title} has {num_chips}: use 1 to {most} replicas or a smaller TP"
        )
    if asked % group:
        raise ConfigError(
            f"{asked} replicas x {parallelism.describe()}: {group} replicas share one set of "
            f"experts; use a multiple of {group}"
        )
    return asked


def _default_tp(budget: MemoryBudget, precision: Precision, degrees: list[int]) -> int:
    """The smallest degree that leaves room; failing that, the largest there is."""
    weight_bytes = budget.model.weight_bytes(precision)
    roomy = [
        tp
        for tp in degrees
        if weight_bytes / tp <= GOOD_WEIGHT_SHARE * budget.usable_bytes
        and budget.free_bytes(precision, Parallelism(tp)) > 0
    ]
    return roomy[0] if roomy else degrees[-1]
