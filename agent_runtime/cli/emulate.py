"""``panjiu emulate``: every replica of the emulated rack as a vLLM look-alike, on its own port."""

from __future__ import annotations

import argparse

from rich.console import Console

from agent_runtime.cli.emulate_processes import ProcessGroup
from agent_runtime.cli.emulate_share import EmulatedShare
from agent_runtime.cli.emulated_model_options import add_emulated_model_options, emulated_model
from agent_runtime.cli.rack_options import (
    add_machine_options,
    add_service_options,
    emulated_machine,
    natural_int,
    positive_float,
    positive_int,
)
from agent_runtime.errors import ConfigError
from agent_runtime.look_alikes.lateness import merged, too_late
from agent_runtime.look_alikes.look_alikes import shares
from hw_model.claim import Band
from hw_model.deployment import Deployment

MAX_PORT = 65_535

DESCRIPTION = """\
Serve every replica of the emulated rack as a vLLM look-alike on a port of its own: chat
completions, vLLM 0.32's /metrics, and its KV events by ZMQ. Nothing stands between a request and
its engine: whoever connects is the router, so any router can be tried against a rack nobody has.

Timing, batching, prefix hits, evictions and preemption are modelled; words are made up. Tokens come
when they are due: how late they were on this machine is told at the end, in /metrics as
panjiu_lateness_seconds, and by a warning while it runs where it is more than 20 ms."""

EXAMPLES = """\
examples:
  panjiu emulate --replicas 8 --model qwen3-8b         http://127.0.0.1:9000 to :9007
  panjiu emulate --replicas 128 --model qwen3-32b --tp 1 --processes 2
                                                       one engine a chip of the AL128
  panjiu emulate --replicas 8 --model qwen3-8b --kv-events-base-port 5557
                                                       KV events on 5557 to 5564, replays behind
  panjiu emulate --rack h100-node8 --model llama-3.1-70b --tp 2
  panjiu emulate --replicas 8 --model qwen3-8b --speed 0.5
                                                       half as fast, where the machine can't keep up

put a router in front:
  vllm-router --policy consistent_hash --port 8000 --worker-urls \\
      $(seq -f http://127.0.0.1:%g 9000 9007)
  smg launch --host 127.0.0.1 --port 8000 --policy cache_aware --worker-urls \\
      $(seq -f http://127.0.0.1:%g 9000 9007)

then send it what you would send a rack:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{
    "model": "qwen3-8b", "stream": true, "max_tokens": 32, "session_id": "agent-1",
    "messages": [{"role": "user", "content": "Plan the day."}]}'
  curl http://127.0.0.1:9000/metrics                   what that router saw of the first engine
"""


def add_emulate_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "emulate",
        help="vLLM look-alikes, one a replica, for any router in front",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_server_options(parser)
    group = add_machine_options(parser)
    group.add_argument("--seed", type=natural_int, default=0, metavar="N", help="(default: 0)")
    add_emulated_model_options(parser)
    parser.set_defaults(run=run_emulate)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the look-alikes")
    group.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    group.add_argument(
        "--base-port",
        type=natural_int,
        default=9000,
        metavar="PORT",
        help="of the first replica, the others follow; 0 picks free ones (default: %(default)s)",
    )
    group.add_argument(
        "--kv-events-base-port",
        type=positive_int,
        metavar="PORT",
        help="publish each replica's KV events, from this port on; needs the extra 'engines'",
    )
    group.add_argument(
        "--kv-replay-base-port",
        type=positive_int,
        metavar="PORT",
        help="where missed events are asked for; by default behind the ports of events",
    )
    group.add_argument(
        "--kv-events-topic", default="", metavar="TEXT", help="topic of the events (default: none)"
    )
    group.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        metavar="N",
        help="each serves a share of the replicas (default: %(default)s)",
    )
    group.add_argument(
        "--speed",
        type=positive_float,
        default=1.0,
        metavar="X",
        help="emulated seconds per second (default: %(default)s)",
    )
    add_service_options(group)


def run_emulate(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    machine = emulated_machine(args)
    deployment = machine.deployment(Band(args.band), args.block_size)
    emulated_model(args)  # a script that can't be read is found now
    _check(args, deployment)
    parts = [
        EmulatedShare(args, part, first, deployment.num_replicas)
        for first, part in shares(deployment, args.processes)
    ]
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with ProcessGroup(parts) as group:
        ports = [port for share_ports in group.ready() for port in share_ports]
        console.print(
            f"{deployment.num_replicas} look-alikes of {machine.model.title} on "
            f"{machine.rack.title}, band {args.band}, {args.speed:g}x real time\n"
            f"{deployment.describe()}\n{_addresses(args, ports)}  (Ctrl-C stops)"
        )
        lateness = merged(group.wait())
    console.print(f"stopped: {lateness.describe()}")
    if not lateness.keeps_time:
        console.print(too_late(lateness))
    return 0


def _check(args: argparse.Namespace, deployment: Deployment) -> None:
    """Refuse options that don't go together.

    Raises:
        ConfigError: Names the option.
    """
    num_replicas = deployment.num_replicas
    if args.processes > num_replicas:
        raise ConfigError(
            f"--processes {args.processes}: there are {num_replicas} replicas; use at most as many"
        )
    if args.kv_replay_base_port is not None and args.kv_events_base_port is None:
        raise ConfigError("--kv-replay-base-port: needs --kv-events-base-port")
    if args.kv_events_base_port is not None and args.kv_replay_base_port is None:
        args.kv_replay_base_port = args.kv_events_base_port + num_replicas
    used: dict[str, range] = {}
    for option in ("base_port", "kv_events_base_port", "kv_replay_base_port"):
        base = getattr(args, option)
        if not base:
            continue
        name = f"--{option.replace('_', '-')} {base}"
        ports = range(base, base + num_replicas)
        if ports[-1] > MAX_PORT:
            raise ConfigError(f"{name}: {num_replicas} ports from there end above {MAX_PORT}")
        for other, taken in used.items():
            if ports[0] <= taken[-1] and taken[0] <= ports[-1]:
                raise ConfigError(f"{name}: its {num_replicas} ports overlap those of {other}")
        used[name] = ports


def _addresses(args: argparse.Namespace, ports: list[int]) -> str:
    if args.base_port:
        lines = [f"listening on http://{args.host}:{ports[0]} to :{ports[-1]}"]
    else:
        lines = ["listening on " + " ".join(f"http://{args.host}:{port}" for port in ports)]
    if args.kv_events_base_port is not None:
        last = len(ports) - 1
        events, replays = args.kv_events_base_port, args.kv_replay_base_port
        lines.append(
            f"KV events on tcp://{args.host}:{events} to :{events + last}, "
            f"replays on :{replays} to :{replays + last}"
        )
    return "\n".join(lines)
