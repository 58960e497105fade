"""``panjiu top``: a rack that is served, live in a terminal."""

from __future__ import annotations

import argparse
import os
import signal
import sys

import anyio
from rich.console import Console

from agent_runtime.cli.rack_options import positive_float
from agent_runtime.cli.top_terminal import room_of
from agent_runtime.cli.top_viewer import TopViewer
from agent_runtime.errors import BackendError, ConfigError, told_plainly
from agent_runtime.rack_view.messages import Frame
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.look import Look
from agent_runtime.terminal_view.rack_state import RackPicture, WatchedRack
from agent_runtime.terminal_view.screen import draw
from agent_runtime.terminal_view.view_client import ViewClient, ViewServer, follow
from agent_runtime.terminal_view.view_messages import read_message

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "PANJIU_DASHBOARD_KEY"
INTERVAL_S = 0.5
SECOND_FRAME_S = 3.0
"""How long one picture waits for a second frame, without which it has no rates."""
FRAMES_OF_A_PICTURE = 2

DESCRIPTION = """\
Show the rack behind 'panjiu serve', emulated or of real engines: sessions by what they do, times to
first token, replicas with their KV and queues, who waits longest, and what was decided last.

Times and rates are the rack's: with 'serve --speed 5', five of its seconds pass in one."""

EXAMPLES = """\
examples:
  panjiu top                                      the server at http://127.0.0.1:8000
  panjiu top gpu-gateway:8000 --interval 2
  PANJIU_DASHBOARD_KEY=... panjiu top https://gateway.example
  panjiu top --once > rack.txt                    one picture; also if the output is no terminal
  panjiu top --json | jq -c 'select(.kind == "frame") | .totals'

keys: q quits, s sorts the replicas (number, queue, KV used, KV active), space freezes the picture,
tab goes to the next panel, j and k (or arrows) scroll it, g goes to its top; Ctrl-Z suspends

exit codes: 0 it was shown, 1 no server, or one without a dashboard, 2 the command line is wrong or
the server wants another key
"""


def add_top_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "top",
        help="a rack that is served, live in a terminal",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "url",
        nargs="?",
        default=DEFAULT_URL,
        metavar="URL",
        help="of the server (default: %(default)s)",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help=f"of the server's dashboard; better in {KEY_VARIABLE}, where no process list shows it",
    )
    parser.add_argument(
        "--interval",
        type=positive_float,
        metavar="S",
        help=f"seconds between pictures (default: {INTERVAL_S:g})",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--once", action="store_true", help="one picture, of all replicas")
    form.add_argument(
        "--json", action="store_true", help="the server's messages as they are, a line each"
    )
    parser.set_defaults(run=run_top)


def run_top(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    if args.json and args.interval is not None:
        raise ConfigError("--interval: not with --json, which passes on every message as it comes")
    key = os.environ.get(KEY_VARIABLE) if args.key is None else args.key
    client = ViewClient(ViewServer.at(args.url, key or None))
    console = Console()
    with told_plainly():
        if args.json:
            anyio.run(_pass_on, client)
        elif args.once or not sys.stdout.isatty() or console.is_dumb_terminal:
            _print(console, anyio.run(_one_picture, client))
        else:
            interval_s = INTERVAL_S if args.interval is None else args.interval
            anyio.run(TopViewer(client, console, interval_s).run)
    return 0


async def _one_picture(client: ViewClient) -> RackPicture:
    """Return what the first frames tell.

    Raises:
        ConfigError: The server wants another key.
        BackendError: There is no server, or it has no view.
    """
    rack, num_frames = WatchedRack(), 0
    async with client.opened() as messages:
        with anyio.CancelScope() as waiting:
            async for data in messages:
                message = read_message(data)
                if message is None:
                    continue
                rack.take(message)
                num_frames += isinstance(message, Frame)
                if num_frames == FRAMES_OF_A_PICTURE:
                    break
                if num_frames:
                    waiting.deadline = anyio.current_time() + SECOND_FRAME_S
    picture = rack.picture()
    if picture is None:
        raise BackendError(f"{client.server.url} ended the stream before it told how the rack is")
    return picture


def _print(console: Console, picture: RackPicture) -> None:
    screen = draw(picture, Look(), None, room_of(console, whole=False))
    for line in screen.lines:
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ignore", crop=False, highlight=False)


async def _pass_on(client: ViewClient) -> None:
    """Write messages, a line each, until interrupted or nobody reads them any more."""

    def take(data: bytes) -> None:
        try:
            sys.stdout.buffer.write(data.replace(b"\n", b" ") + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Whoever read has had enough; what Python would still flush at its end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            tasks.cancel_scope.cancel()

    errors = Console(stderr=True)
    problem: str | None = None

    def told(connection: Connection) -> None:
        nonlocal problem
        if connection.problem is not None and connection.problem != problem:
            errors.print(f"panjiu: {connection.problem}; trying again", highlight=False)
        problem = connection.problem

    async def leave() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await follow(client, take, told)
