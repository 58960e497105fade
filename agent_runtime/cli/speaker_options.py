"""Who says what is answered: the emulated model, or a real server at the rack's pace."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from rich.console import Console

from agent_runtime.backends.chat_upstream import ChatUpstream
from agent_runtime.chat_client import ChatServer
from agent_runtime.cli.emulated_model_options import add_emulated_model_options, emulated_model
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.errors import ConfigError

KEY_VARIABLE = "PANJIU_PACED_API_KEY"


def add_speaker_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--paced`` and the emulated model's options."""
    add_emulated_model_options(parser)
    group = parser.add_argument_group("real words")
    group.add_argument(
        "--paced",
        metavar="URL",
        help="an OpenAI-compatible server, /v1 included, whose words come at the emulated rack's "
        f"timing; its key, if any, is in {KEY_VARIABLE}",
    )
    group.add_argument(
        "--paced-model", metavar="NAME", help="the model to ask it for; by default the caller's"
    )


@asynccontextmanager
async def chosen_speaker(args: argparse.Namespace) -> AsyncIterator[EmulatedModel | ChatUpstream]:
    """Open who speaks; at the end say how late a real server was."""
    if args.paced is None:
        yield emulated_model(args)
        return
    options = ChatServer(args.paced, args.paced_model, os.environ.get(KEY_VARIABLE))
    async with ChatUpstream(options) as upstream:
        yield upstream
    lateness = upstream.lateness
    Console(stderr=True).print(
        f"{args.paced} was behind the rack in {lateness.num_late:,} of {lateness.num_turns:,} "
        f"turns, by {lateness.worst_s:.2f} s at worst",
        highlight=False,
        soft_wrap=True,
    )


def check_speaker(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and scripts that can't be read.

    Raises:
        ConfigError: Names the option.
    """
    if args.paced is None:
        if args.paced_model is not None:
            raise ConfigError("--paced-model: says what to ask --paced URL for, which is missing")
        emulated_model(args)
        return
    if args.replies is not None:
        raise ConfigError("--replies: a real server (--paced) says what it says; leave one out")
    if urlsplit(args.paced).scheme not in {"http", "https"} or not urlsplit(args.paced).netloc:
        raise ConfigError(f"--paced {args.paced}: expected a URL such as http://127.0.0.1:9000/v1")
