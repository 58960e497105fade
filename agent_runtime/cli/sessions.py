"""``panjiu sessions``: what the sessions in a journal did, and going on with them."""

from __future__ import annotations

import argparse
import json
import sys

import anyio
from rich.console import Console

from agent_runtime.cli.agent_option import named_agent
from agent_runtime.cli.session_report import (
    session_as_json,
    sessions_table,
    show_session,
    summary_as_json,
)
from agent_runtime.errors import ConfigError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.events import RunResult
from agent_runtime.sdk.journal_places import opened_to_read
from agent_runtime.sdk.journaling.stored import (
    StoredStep,
    check_unfinished,
    last_of_id,
    stored_steps,
)
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.runtime import Runtime, RuntimeOptions

DESCRIPTION = """\
Look into a journal, the file or the Redis in which programs of the SDK's keep their sessions
(RuntimeOptions(journal="fleet.db")), and go on with sessions that broke off. 'list' and 'show' may
look while programs run; 'resume' writes, so the program that had the file, or in Redis the session,
must have ended.

To go on with a whole program, run it again with the same journal: what was done is not done
again."""

EXAMPLES = """\
examples:
  panjiu sessions list fleet.db
  panjiu sessions list fleet.db --state running --state failed     what can be resumed
  panjiu sessions list redis://host:6379/0                         the same in Redis
  panjiu sessions show fleet.db coder-7                            its conversation, step by step
  panjiu sessions resume fleet.db coder-7 --agent fleet:CODER --url http://127.0.0.1:8000/v1
"""

LIST_EXAMPLES = """\
states:
  running   a step is under way, or was when the program ended
  failed    the last step failed
  waiting   for the program to tell it something
  closed    over

examples:
  panjiu sessions list fleet.db
  panjiu sessions list fleet.db --state failed --json
"""

SHOW_EXAMPLES = """\
examples:
  panjiu sessions show fleet.db coder-7
  panjiu sessions show fleet.db coder-7 --full     texts and results of tools, however long
  panjiu sessions show fleet.db coder-7 --json
"""

RESUME_DESCRIPTION = """\
Go on with the run that was under way when the program ended, or that failed, and print the answer.
What the model said is not asked again, finished tool calls are not repeated; those that were under
way are. The program finds the answer in the journal when it runs again."""

RESUME_EXAMPLES = """\
examples:
  panjiu sessions resume fleet.db coder-7 --agent fleet:CODER     CODER in fleet.py, here
  panjiu sessions resume fleet.db coder-7                         an agent that needs no tools
  panjiu sessions resume fleet.db coder-7 --agent fleet:CODER --url http://127.0.0.1:8000/v1

without --agent it is one of the recorded instructions, without tools and options
"""


def add_sessions_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "sessions",
        help="what sessions of an agent program did, and going on with them",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_list(actions)
    _add_show(actions)
    _add_resume(actions)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=what,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("journal", metavar="JOURNAL", help="the file, or redis://HOST:PORT/DB")
    return parser


def _add_list(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "the sessions in a journal"
    parser = _action(actions, "list", what, "List the sessions in a journal.", LIST_EXAMPLES)
    parser.add_argument(
        "--state",
        action="append",
        choices=["running", "waiting", "failed", "closed"],
        help="only these; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(run=run_list)


def _add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "what one session said and did"
    description = (
        "Show the conversation of a session, step by step. Of several of one id, the last."
    )
    parser = _action(actions, "show", what, description, SHOW_EXAMPLES)
    parser.add_argument("session_id", metavar="ID", help="the session")
    parser.add_argument("--full", action="store_true", help="don't cut long texts")
    parser.add_argument("--json", action="store_true", help="for machines; nothing is cut")
    parser.set_defaults(run=run_show)


def _add_resume(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    what = "go on with a run that broke off"
    parser = _action(actions, "resume", what, RESUME_DESCRIPTION, RESUME_EXAMPLES)
    parser.add_argument("session_id", metavar="ID", help="the session")
    parser.add_argument("--agent", metavar="MODULE:NAME", help="the agent, as Python imports it")
    parser.add_argument(
        "--url", metavar="URL", help="the server (default: PANJIU_BASE_URL or OPENAI_BASE_URL)"
    )
    parser.add_argument("--model", metavar="NAME", help="the model (default: as before)")
    parser.set_defaults(run=run_resume)


def run_list(args: argparse.Namespace) -> int:
    """Carry out ``list``; return its exit code."""
    with opened_to_read(args.journal) as reader:
        name, summaries, is_written = reader.name, reader.summaries(), reader.is_written()
    if args.state is not None:
        summaries = [summary for summary in summaries if summary.state.value in args.state]
    if args.json:
        json.dump([summary_as_json(summary) for summary in summaries], sys.stdout, indent=2)
        print()
        return 0
    console = Console()
    console.print(sessions_table(summaries))
    written = "a program writes to it now" if is_written else "no program has it open"
    told = f"{len(summaries):,} sessions in {name}; {written}"
    console.print(told, highlight=False, soft_wrap=True)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Carry out ``show``; return its exit code."""
    summary, steps = _last_session(args)
    if args.json:
        json.dump(session_as_json(summary, steps), sys.stdout, indent=2)
        print()
        return 0
    show_session(Console(), summary, steps, full=args.full)
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """Carry out ``resume``; return its exit code."""
    agent = None if args.agent is None else named_agent(args.agent)
    summary, steps = _last_session(args)
    check_unfinished(summary, steps)
    model = args.model or (agent and agent.model) or summary.model
    result = anyio.run(_resumed, args, agent, model)
    print(result.text)
    usage = result.usage
    Console(stderr=True).print(
        f"{result.num_turns:,} turns, {usage.prompt_tokens:,} prompt tokens, "
        f"{usage.cached_tokens:,} of them cached, {usage.output_tokens:,} output tokens",
        highlight=False,
    )
    return 0


def _last_session(args: argparse.Namespace) -> tuple[SessionSummary, list[StoredStep]]:
    with opened_to_read(args.journal) as reader:
        found = reader.summaries(args.session_id)
        summary = last_of_id(found, args.session_id, reader.name)
        return summary, stored_steps(reader, summary.key)


async def _resumed(args: argparse.Namespace, agent: Agent | None, model: str) -> RunResult[str]:
    options = RuntimeOptions(journal=args.journal)
    try:
        async with Runtime.connect(args.url, model=model, options=options) as runtime:
            return await runtime.resume(args.session_id, agent, model=args.model)
    except ConfigError as error:
        if args.url is None and "no server" in str(error):
            raise ConfigError("no server: pass --url, or set OPENAI_BASE_URL") from error
        raise
