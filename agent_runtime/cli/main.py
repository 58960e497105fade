"""``panjiu``: reads the command line, runs one command, turns errors into exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console

import agent_runtime.errors
import hw_model.errors
import scheduler.errors
from agent_runtime.cli.bench import add_bench_command
from agent_runtime.cli.calibrate import add_calibrate_command
from agent_runtime.cli.emulate import add_emulate_command
from agent_runtime.cli.explain import add_explain_command
from agent_runtime.cli.loadtest import add_loadtest_command
from agent_runtime.cli.plan import add_plan_command
from agent_runtime.cli.rack import add_models_command, add_rack_command
from agent_runtime.cli.replay import add_replay_command
from agent_runtime.cli.run import add_run_command, run_program
from agent_runtime.cli.serve import add_serve_command
from agent_runtime.cli.sessions import add_sessions_command
from agent_runtime.cli.simulate import add_simulate_command
from agent_runtime.cli.top import add_top_command
from agent_runtime.cli.trace import add_trace_command

DESCRIPTION = """\
Panjiu runs agent sessions on the Alibaba Panjiu AL128, emulated: 128 Zhenwu M890 accelerators that
most people can't get. Plan capacity and compare scheduling in virtual time, or develop agents
against an endpoint that answers as fast as the rack would."""

EPILOG = """\
start here:
  panjiu simulate             256 coding agents on the rack, in about ten seconds
  panjiu run AGENTS.py --virtual
                              your own agent program against the rack, in virtual time
  panjiu bench                scheduling policies beside each other, on the same sessions
  panjiu serve                the rack behind http://127.0.0.1:8000/v1
  panjiu top                  that rack, live in a terminal
  panjiu replay RUN.jsonl --out RUN.html
                              a run to be watched again in a browser
  panjiu emulate              every replica as a vLLM look-alike, for any router in front
  panjiu sessions list FLEET.DB
                              what sessions of an agent program did, and what to resume
  panjiu loadtest --url URL   agent sessions as load on any OpenAI-compatible server
  panjiu plan                 which layouts carry 300 agents, and what would carry more
  panjiu rack                 what is emulated, and how far to trust each number
  panjiu simulate --help      what can be varied, with examples

exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted
"""

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = _parsed(arguments)
    args.owns_process = argv is None
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; nothing was written")
        return EXIT_INTERRUPTED
    except (
        agent_runtime.errors.TraceError,
        agent_runtime.errors.ScriptError,
        agent_runtime.errors.BackendError,
        agent_runtime.errors.AgentError,
        hw_model.errors.DoesNotFitError,
    ) as error:
        return _fail(error, EXIT_FAILURE)
    except (
        agent_runtime.errors.ConfigError,
        hw_model.errors.ConfigError,
        scheduler.errors.ConfigError,
    ) as error:
        return _fail(error, EXIT_USAGE)
    except OSError as error:
        return _fail(error, EXIT_FAILURE)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse what stands before ``--``; what follows it is for the program that ``run`` runs."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    args = parser.parse_args(arguments[:end])
    args.script_args = arguments[end + 1 :]
    if args.script_args and args.run is not run_program:
        parser.error(f"only 'run' takes arguments after --, not {' '.join(args.script_args)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="panjiu",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"panjiu {version('panjiu')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_simulate_command(commands)
    add_bench_command(commands)
    add_explain_command(commands)
    add_replay_command(commands)
    add_run_command(commands)
    add_serve_command(commands)
    add_top_command(commands)
    add_emulate_command(commands)
    add_sessions_command(commands)
    add_loadtest_command(commands)
    add_trace_command(commands)
    add_plan_command(commands)
    add_rack_command(commands)
    add_models_command(commands)
    add_calibrate_command(commands)
    return parser


def _fail(error: Exception, code: int) -> int:
    print(f"panjiu: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
