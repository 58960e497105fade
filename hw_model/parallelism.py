"""How one replica is spread over chips."""

from __future__ import annotations

from typing import NamedTuple

from hw_model.errors import ConfigError
from hw_model.specs import ModelSpec


class Parallelism(NamedTuple):
    """Degrees of parallelism, in vLLM's sense of the words.

    Attributes:
        tp: Chips that share every layer's attention.
        pp: Pipeline stages; each holds a share of the layers, on ``tp`` chips of its own.
        ep: Chips that the experts of a layer are spread over, whole ones each; 1: every expert is
            cut into ``tp`` slices instead. More than ``tp``: ``ep / tp`` replicas share their
            experts and take every step together; their attention, and so their KV, is their own
            (data-parallel attention).
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1

    @property
    def num_chips(self) -> int:
        """Chips of one replica."""
        return self.tp * self.pp

    @property
    def group_replicas(self) -> int:
        """Replicas that share one set of experts."""
        return max(1, self.ep // self.tp)

    @property
    def expert_chips(self) -> int:
        """Chips that one set of a stage's experts is spread over, whole or in slices."""
        return max(self.tp, self.ep)

    def describe(self) -> str:
        """Return it as people write it: ``TP4``, ``TP4 PP2``, ``TP2 EP16``."""
        pp = f" PP{self.pp}" if self.pp > 1 else ""
        ep = f" EP{self.ep}" if self.ep > 1 else ""
        return f"TP{self.tp}{pp}{ep}"

    def check(self, model: ModelSpec, domain_chips: int) -> None:
        """Raise if the model can't be spread so inside one scale-up domain.

        Raises:
            ConfigError: Says which degree is wrong and what would do.
        """
        heads = model.attention.num_q_heads
        degrees = tp_degrees(model, domain_chips)
        if self.tp not in degrees:
            raise ConfigError(
                f"TP{self.tp} is not possible for {model.title}: a TP group divides the {heads} "
                f"query heads and stays inside a domain of {domain_chips} chips; use one of "
                f"{degrees}"
            )
        if self.pp < 1 or self.pp > model.num_layers or self.num_chips > domain_chips:
            most = min(model.num_layers, domain_chips // self.tp)
            raise ConfigError(
                f"PP{self.pp} is not possible for {model.title} with TP{self.tp}: a replica's "
                f"stages stay inside a domain of {domain_chips} chips; use 1 to {most}"
            )
        if self.ep != 1:
            self._check_experts(model, domain_chips)

    def _check_experts(self, model: ModelSpec, domain_chips: int) -> None:
        if model.experts is None:
            raise ConfigError(f"EP{self.ep}: {model.title} has no experts; leave EP at 1")
        degrees = ep_degrees(model, self.tp, domain_chips)
        if self.ep not in degrees:
            raise ConfigError(
                f"EP{self.ep} is not possible for {model.title} with TP{self.tp}: EP is a multiple "
                f"of TP that divides its {model.experts.num_experts} experts and stays inside a "
                f"domain of {domain_chips} chips; use 1 or one of {degrees}"
            )
        if self.pp > 1 and self.ep > self.tp:
            raise ConfigError(
                f"EP{self.ep} with PP{self.pp}: replicas with stages can't share experts; use PP1, "
                f"or EP{self.tp}"
            )


def tp_degrees(model: ModelSpec, domain_chips: int) -> list[int]:
    """Return the powers of two that divide the query heads and stay inside a domain."""
    return [tp for tp in _powers(domain_chips) if model.attention.num_q_heads % tp == 0]


def ep_degrees(model: ModelSpec, tp: int, domain_chips: int) -> list[int]:
    """Return the EP degrees above 1 that go with ``tp``: ``tp`` times powers of two."""
    if model.experts is None:
        return []
    degrees = [tp * times for times in _powers(domain_chips // tp)]
    return [ep for ep in degrees if ep > 1 and model.experts.num_experts % ep == 0]


def _powers(limit: int) -> list[int]:
    return [1 << power for power in range(limit.bit_length()) if 1 << power <= limit]
