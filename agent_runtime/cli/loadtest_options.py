"""The options of ``loadtest``, and the plan that they make."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import urlsplit

from agent_runtime.cli.duration import natural_duration, positive_duration
from agent_runtime.cli.rack_options import natural_float, natural_int, positive_int
from agent_runtime.clock import epoch_s
from agent_runtime.errors import ConfigError
from agent_runtime.load_test.arrivals import ArrivalKind, Arrivals
from agent_runtime.load_test.load_plan import LoadPlan, Objectives, Speech
from agent_runtime.load_test.phases import Phases
from agent_runtime.load_test.request_form import ReplyLength, SessionIdentity
from agent_runtime.load_test.session_player import AfterError, History
from agent_runtime.workload.agentx import MAX_GAP_S, agentx_replay
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import GENERATORS, load_workload

RAMP_SHARE = WARMUP_SHARE = 0.1
"""Of the duration, by default."""

DEFAULT_SESSIONS = 16
OWN_HEADERS = {"content-type", "content-length", "host", "transfer-encoding"}


def add_load_options(parser: argparse.ArgumentParser) -> None:
    """Add what is loaded, with what, and for how long."""
    server = parser.add_argument_group("the server")
    server.add_argument(
        "--url",
        metavar="URL",
        help="of the server, e.g. http://127.0.0.1:8000, with /v1 or without",
    )
    server.add_argument(
        "--model", metavar="M", help="what to ask for (default: the only one that it has)"
    )
    server.add_argument(
        "--timeout",
        type=positive_duration,
        default=600.0,
        metavar="T",
        help="give up a call after so long without a byte (default: 10m)",
    )
    server.add_argument(
        "--session-id",
        choices=[identity.value for identity in SessionIdentity],
        default=SessionIdentity.HEADER.value,
        help="how requests name their session: a header, session_id or prompt_cache_key in the "
        "body, or not at all (default: %(default)s)",
    )
    server.add_argument(
        "--session-header",
        default="X-Session-ID",
        metavar="NAME",
        help="that header (default: %(default)s)",
    )
    server.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="NAME:VALUE",
        help="of every request; can be given several times",
    )
    server.add_argument(
        "--extra-body",
        type=_object,
        default={},
        metavar="JSON",
        help="""fields of every body, e.g. '{"temperature": 0}'""",
    )
    group = parser.add_argument_group("the sessions")
    _add_session_options(group)
    _add_speech_options(group)
    _add_time_options(parser)


def _add_session_options(group: argparse._ArgumentGroup) -> None:
    """Add which sessions there are, and when their turns are due."""
    group.add_argument(
        "--workload",
        default="coding-agents",
        metavar="SOURCE",
        help=f"a trace file or folder, or a generator: {', '.join(GENERATORS)} "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--sessions",
        type=positive_int,
        metavar="N",
        help=f"closed loop: so many at a time (default: {DEFAULT_SESSIONS}); open loop: so many "
        "start at most",
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="read or make N sessions")
    group.add_argument(
        "--seed", type=natural_int, default=0, metavar="N", help="of generators and arrivals (0)"
    )
    group.add_argument(
        "--replay",
        choices=["agentx"],
        help="start in the middle of sessions and share nothing, by AgentX' rules "
        "(docs/workloads.md)",
    )
    group.add_argument(
        "--max-gap-s",
        type=natural_float,
        default=MAX_GAP_S,
        metavar="S",
        help="cut longer tool gaps to S seconds (default: %(default)g)",
    )
    group.add_argument(
        "--gap-scale",
        type=natural_float,
        default=1.0,
        metavar="X",
        help="tool gaps and a trace's times are X times as long (default: 1)",
    )


def _add_speech_options(group: argparse._ArgumentGroup) -> None:
    """Add what is said in them."""
    group.add_argument(
        "--reply-length",
        choices=[length.value for length in ReplyLength],
        default=ReplyLength.AUTO.value,
        help="exact: as scripted, by ignore_eos and min_tokens; cap: at most as scripted; natural: "
        "as the model likes; auto: exact if the server takes it, else cap (default)",
    )
    group.add_argument(
        "--history",
        choices=[history.value for history in History],
        default=History.REPLIES.value,
        help="what the next prompt has for a reply: the server's own, or filler of the scripted "
        "length, which is the same whoever answers (default: %(default)s)",
    )
    group.add_argument(
        "--on-error",
        choices=[after.value for after in AfterError],
        default=AfterError.END.value,
        help="whether a session ends when a turn fails, or goes on with filler for the reply "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--salt",
        metavar="TEXT",
        help="of the prompts: another salt, other prompts (default: the time, so that no run finds "
        "another's in caches)",
    )


def _add_time_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the load")
    group.add_argument(
        "--arrival",
        default="closed",
        metavar="HOW",
        help="closed: a session starts when another has ended; poisson:RATE: at random, so many a "
        "second; trace: when the trace says (default: %(default)s)",
    )
    group.add_argument(
        "--duration",
        type=positive_duration,
        metavar="T",
        help="what counts, e.g. 5m; sessions come again if need be (default: until each ran once)",
    )
    group.add_argument(
        "--ramp",
        type=natural_duration,
        metavar="T",
        help="before it, the load grows so long (default: a tenth of it)",
    )
    group.add_argument(
        "--warmup",
        type=natural_duration,
        metavar="T",
        help="between the two, the full load so long (default: a tenth of it)",
    )
    group.add_argument(
        "--drain",
        type=natural_duration,
        default=60.0,
        metavar="T",
        help="after it, wait so long for turns under way (default: 60s)",
    )
    group.add_argument(
        "--slo-ttft", type=positive_duration, metavar="T", help="a good turn's TTFT at most, e.g. 2"
    )
    group.add_argument(
        "--slo-tpot",
        type=positive_duration,
        metavar="T",
        help="a good turn's TPOT at most, e.g. 0.05 or 50ms",
    )


def load_plan(args: argparse.Namespace) -> LoadPlan:
    """Return the plan that options make.

    Raises:
        ConfigError: Names the option.
        TraceError: The workload can't be read.
    """
    if args.url is None:
        raise ConfigError("--url: say which server to load, e.g. --url http://127.0.0.1:8000")
    arrivals = Arrivals.parse(args.arrival)
    sessions = args.sessions
    if sessions is None and arrivals.kind is ArrivalKind.CLOSED:
        sessions = DEFAULT_SESSIONS
    plan = LoadPlan(
        base_url=_base_url(args.url),
        model=args.model,
        workload=_workload(args, sessions),
        arrivals=arrivals,
        num_sessions=sessions,
        phases=_phases(args, arrivals),
        objectives=Objectives(args.slo_ttft, args.slo_tpot),
        speech=Speech(
            reply_length=ReplyLength(args.reply_length),
            history=History(args.history),
            identity=SessionIdentity(args.session_id),
            session_header=args.session_header,
            more=args.extra_body,
            headers=dict(args.header),
            timeout_s=args.timeout,
        ),
        gap_scale=args.gap_scale,
        after_error=AfterError(args.on_error),
        seed=args.seed,
        salt=f"{int(epoch_s()):x}" if args.salt is None else args.salt,
    )
    plan.check()
    return plan


def _workload(args: argparse.Namespace, sessions: int | None) -> Workload:
    source = args.workload
    if source not in GENERATORS and f"{source}s" in GENERATORS:
        source = f"{source}s"
    workload = load_workload(source, limit=args.limit, seed=args.seed, max_gap_s=args.max_gap_s)
    if args.replay is None:
        return workload
    return agentx_replay(workload, num_lanes=sessions, seed=args.seed)


def _phases(args: argparse.Namespace, arrivals: Arrivals) -> Phases:
    if args.duration is None:
        for option in ("ramp", "warmup"):
            if getattr(args, option):
                raise ConfigError(
                    f"--{option}: without --duration every session runs once and all of it counts; "
                    "give a --duration"
                )
        return Phases(0.0, 0.0, None, args.drain)
    ramp_s = args.ramp
    if ramp_s is None:
        ramp_s = 0.0 if arrivals.kind is ArrivalKind.TRACE else RAMP_SHARE * args.duration
    warmup_s = WARMUP_SHARE * args.duration if args.warmup is None else args.warmup
    return Phases(ramp_s, warmup_s, args.duration, args.drain)


def _base_url(text: str) -> str:
    """Return a server's address without ``/v1``; it may have a path."""
    parts = urlsplit(text.rstrip("/").removesuffix("/v1"))
    try:
        is_sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or parts.query or parts.fragment:
        raise ConfigError(f"--url {text}: expected an address such as http://127.0.0.1:8000")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    is_sound = colon and name.replace("-", "").replace("_", "").isalnum() and text.isascii()
    if not is_sound or not value.isprintable():
        raise argparse.ArgumentTypeError(f"expected NAME:VALUE, got {text!r}")
    if name.lower() in OWN_HEADERS:
        raise argparse.ArgumentTypeError(f"{name} is the client's own; leave it out")
    return name, value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {text!r}")
    _refuse_own(value)
    return value


def _refuse_own(fields: dict[str, Any]) -> None:
    for name in ("model", "messages", "stream", "n"):
        if name in fields:
            raise argparse.ArgumentTypeError(f"{name} is the load test's own; leave it out")
