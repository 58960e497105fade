"""The options that say what rack is emulated; ``simulate`` and ``serve`` share them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.cli.catalog_option import add_catalog_option, chosen_catalog
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec
from hw_model.ttft_boundary import TtftBoundary
from scheduler.policies import POLICIES, policy_entry


@dataclass(frozen=True, slots=True)
class EmulatedMachine:
    """What the options name, looked up."""

    rack: RackSpec
    chip: ChipSpec
    model: ModelSpec
    request: DeploymentRequest
    limits: EngineLimits

    def deployment(self, band: Band, block_size_tokens: int) -> Deployment:
        """Lay the model out on the rack for one band.

        Raises:
            ConfigError: An impossible TP, precision or number of replicas.
            DoesNotFitError: No room; the message says what would fit.
        """
        request = DeploymentRequest(
            precision=self.request.precision,
            kv_precision=self.request.kv_precision,
            tp=self.request.tp,
            num_replicas=self.request.num_replicas,
            block_size_tokens=block_size_tokens,
            max_num_seqs=self.limits.max_num_seqs,
        )
        return plan_deployment(self.rack, self.chip, self.model, request, band=band)


def add_rack_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``emulated_machine`` reads, and ``--policy`` and ``--seed``."""
    group = add_machine_options(parser)
    group.add_argument(
        "--policy",
        default="panjiu",
        metavar="NAME",
        help=f"who decides where and when turns run: {', '.join(POLICIES)} (default: %(default)s)",
    )
    group.add_argument("--seed", type=natural_int, default=0, metavar="N", help="(default: 0)")


def add_machine_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the rack, the model and the engines; return their group."""
    group = parser.add_argument_group("the emulated rack")
    group.add_argument(
        "--rack",
        default="panjiu-al128",
        metavar="NAME",
        help="one that 'panjiu rack' lists (default: %(default)s)",
    )
    group.add_argument(
        "--model",
        default="qwen3-235b-a22b",
        metavar="NAME",
        help="one that 'panjiu models' lists (default: %(default)s)",
    )
    add_catalog_option(group)
    group.add_argument(
        "--tp",
        type=positive_int,
        metavar="N",
        help="chips a replica; by default the fewest whose weights use half of the HBM or less",
    )
    group.add_argument(
        "--replicas", type=positive_int, metavar="N", help="by default as many as the rack holds"
    )
    precisions = [precision.value for precision in Precision]
    group.add_argument(
        "--precision", choices=precisions, help="of the weights (default: fp8 where possible)"
    )
    group.add_argument(
        "--kv-precision", choices=precisions, default="bf16", help="of the KV (default: bf16)"
    )
    _add_engine_options(group)
    return group


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    limits = EngineLimits()
    group.add_argument(
        "--max-num-batched-tokens",
        type=positive_int,
        default=limits.max_num_batched_tokens,
        metavar="N",
        help="new tokens an engine computes in one step (default: %(default)s)",
    )
    group.add_argument(
        "--max-num-seqs",
        type=positive_int,
        default=limits.max_num_seqs,
        metavar="N",
        help="requests an engine runs at once (default: %(default)s)",
    )


def add_service_options(
    group: argparse._ArgumentGroup, more_bands: Sequence[str] = (), about_band: str = ""
) -> None:
    """Add the options of a rack that answers requests: ``--band`` and ``--block-size``.

    Args:
        group: Where to.
        more_bands: Other choices of ``--band``.
        about_band: What these mean.
    """
    group.add_argument(
        "--band",
        choices=[*(band.value for band in Band), *more_bands],
        default=Band.BASE.value,
        help=f"which machine within what is known{about_band} (default: %(default)s)",
    )
    group.add_argument(
        "--block-size",
        type=positive_int,
        default=64,
        metavar="N",
        help="tokens in a KV block (default: %(default)s)",
    )


def add_ttft_boundary_option(group: argparse._ArgumentGroup) -> None:
    """Add ``--ttft-boundary``."""
    group.add_argument(
        "--ttft-boundary",
        choices=[boundary.value for boundary in TtftBoundary],
        default=TtftBoundary.CLIENT.value,
        help="whose clock TTFT is read on; a client's sees HTTP and tokenising too "
        "(default: client)",
    )


def emulated_machine(args: argparse.Namespace) -> EmulatedMachine:
    """Look up what the options name.

    Raises:
        UnknownNameError: A rack or model that is not in the catalog.
        UnknownPolicyError: A policy that does not exist.
    """
    if "policy" in args:
        policy_entry(args.policy)
    catalog = chosen_catalog(args)
    rack = catalog.rack(args.rack)
    return EmulatedMachine(
        rack=rack,
        chip=catalog.chip(rack.chip),
        model=catalog.model(args.model),
        request=DeploymentRequest(
            precision=None if args.precision is None else Precision(args.precision),
            kv_precision=Precision(args.kv_precision),
            tp=args.tp,
            num_replicas=args.replicas,
        ),
        limits=EngineLimits(args.max_num_batched_tokens, args.max_num_seqs),
    )


def positive_int(text: str) -> int:
    """Parse a whole number >= 1."""
    return _int_from(1, text)


def natural_int(text: str) -> int:
    """Parse a whole number >= 0."""
    return _int_from(0, text)


def positive_float(text: str) -> float:
    """Parse a finite number > 0."""
    return _float(text, positive=True)


def natural_float(text: str) -> float:
    """Parse a finite number >= 0."""
    return _float(text, positive=False)


def _int_from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text!r}")
    return value


def _float(text: str, *, positive: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (positive and value == 0):
        least = "> 0" if positive else ">= 0"
        raise argparse.ArgumentTypeError(f"expected a number {least}, got {text!r}")
    return value
