"""The options that say what the emulated model says; commands with an endpoint share them."""

from __future__ import annotations

import argparse

from agent_runtime.cli.rack_options import natural_float, natural_int, positive_float
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.reply_limits import ReplyLength
from agent_runtime.emulated_model.reply_script import read_reply_script
from agent_runtime.emulated_model.scripted_model import ScriptedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse


def add_emulated_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``emulated_model`` reads, beside ``--seed``."""
    length, tool_use = ReplyLength(), ToolUse()
    group = parser.add_argument_group("what the model says")
    group.add_argument(
        "--replies",
        metavar="FILE",
        help="a TOML file of rules (docs/emulated_model.md); what none fits is made up from --seed",
    )
    group.add_argument(
        "--reply-tokens",
        type=positive_float,
        default=length.median_tokens,
        metavar="N",
        help="median tokens of a reply (default: %(default)g)",
    )
    group.add_argument(
        "--tool-steps",
        type=natural_float,
        default=tool_use.mean_steps,
        metavar="N",
        help="mean steps with tool calls before a user's message is answered, where the caller "
        "offers tools; 0 calls none (default: %(default)g)",
    )
    group.add_argument(
        "--max-tool-steps",
        type=natural_int,
        default=tool_use.max_steps,
        metavar="N",
        help="the most such steps; agent programs give up after some (default: %(default)s)",
    )
    group.add_argument(
        "--tool-calls",
        type=_at_least_one,
        default=tool_use.mean_calls,
        metavar="N",
        help="mean calls in such a step (default: %(default)g)",
    )


def emulated_model(args: argparse.Namespace) -> EmulatedModel:
    """Make the model the options describe.

    Raises:
        ScriptError: The script can't be read; names the file, the rule and the field.
    """
    seeded = SeededModel(
        args.seed,
        ReplyLength(median_tokens=args.reply_tokens),
        ToolUse(
            mean_steps=args.tool_steps,
            max_steps=args.max_tool_steps,
            mean_calls=args.tool_calls,
        ),
    )
    if args.replies is None:
        return seeded
    script = read_reply_script(args.replies)
    return ScriptedModel(script, path=args.replies, otherwise=seeded, seed=args.seed)


def _at_least_one(text: str) -> float:
    value = positive_float(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text!r}")
    return value
