"""Reads recorded agent sessions, in the forms that ``trace_format`` tells of (docs/workloads.md).

The recording is of another server, so its clock matters only between calls: a turn's gap is what
passed between the end of one call and the start of the next, sub-agents taken out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from agent_runtime.errors import TraceError
from agent_runtime.workload.block_id_runs import (
    BlockIdRun,
    IdMap,
    clipped,
    common_prefix,
    joined,
    num_blocks,
)
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from agent_runtime.workload.trace_files import TraceDocument, trace_documents
from agent_runtime.workload.trace_format import (
    RecordedCall,
    RecordedSession,
    RecordedSubAgent,
    parse_session,
)
from scheduler.events import NO_HINT, GapCause, GapHint
from scheduler.ids import SessionId

SCOPE_SIZE = 1 << 34
"""Global block ids are a scope's number times this, plus a local id or position."""

FIRST_UNKNOWN_ID = 1 << 33
"""Local ids from here on stand for blocks whose ids were not recorded."""

CLOCK_RESOLUTION_S = 1.0
"""Captures round the times of calls to seconds."""

_GAPS = {"tool_use": GapHint(GapCause.TOOL), "end_turn": GapHint(GapCause.HUMAN)}
"""What a session does after a reply that stops so."""

Trunk = tuple[int, int]
"""``(tool_tokens, system_tokens)``: equal for sessions of the same harness."""


def read_agent_trace(
    path: str | Path, *, limit: int | None = None, max_gap_s: float | None = None
) -> Workload:
    """Read a trace.

    Args:
        path: The file, or a folder of files.
        limit: Read at most so many sessions.
        max_gap_s: Cut longer gaps to this.

    Returns:
        The sessions in the file's order. Block ids are global: the leading blocks that hold a
        harness's tools and system prompt are the same in all its sessions. A sub-agent recorded
        before its parent's first call is taken to follow that call.

    Raises:
        TraceError: The file can't be read, or a line is not a session; names line and field.
    """
    reader = _TraceReader(max_gap_s)
    for document in trace_documents(str(path)):
        if limit is not None and len(reader.sessions) >= limit:
            break
        reader.add(document)
    if not reader.sessions:
        raise TraceError("no sessions in it", path=str(path))
    return Workload(
        name=Path(path).name,
        block_size_tokens=reader.block_size_tokens,
        sessions=tuple(reader.sessions),
        notes=reader.notes(),
    )


@dataclass(slots=True)
class _Scopes:
    """Hands out ranges of global block ids."""

    _bases: dict[tuple[object, ...], int] = field(default_factory=dict)

    def base(self, *key: object) -> int:
        """Return where the ids of a scope start; the same key has the same base."""
        return self._bases.setdefault(key, (len(self._bases) + 1) * SCOPE_SIZE)


class _TraceReader:
    """Turns lines into scripts, remembering what lines share.

    Invariant: ``_names`` holds the id of every session and sub-agent read so far, with whose
        it is and in which file.
    """

    def __init__(self, max_gap_s: float | None) -> None:
        self.sessions: list[SessionScript] = []
        self.block_size_tokens = 0
        self._path = ""
        self._max_gap_s = float("inf") if max_gap_s is None else max_gap_s
        self._scopes = _Scopes()
        self._names: dict[str, tuple[str, str]] = {}
        self._repeats: dict[str, int] = {}
        self._line: int | None = None
        self._num_unknown_blocks = 0  # of the session that is read
        self._num_empty_outputs = 0
        self._num_overtaken = 0

    def add(self, document: TraceDocument) -> None:
        """Read one session."""
        self._path, self._line = document.path, document.line
        self._num_unknown_blocks = 0
        recorded = parse_session(document.data, path=self._path, line_number=self._line)
        if not self.sessions:
            self.block_size_tokens = recorded.block_size
        if recorded.block_size != self.block_size_tokens:
            problem = f"expected {self.block_size_tokens} as before, found {recorded.block_size}"
            raise self._error(problem, "block_size")
        if recorded.id in self._names:
            whose, path = self._names[recorded.id]
            there = whose if path == self._path else f"{whose} of {path}"
            raise self._error(f"{recorded.id!r} is the id of {there} too", "id")
        self._names[recorded.id] = (self._here(), self._path)
        self.sessions.append(self._session(recorded))

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the report should know."""
        empty, overtaken = self._num_empty_outputs, self._num_overtaken
        notes = []
        if empty:
            notes.append(
                f"{empty} recorded calls had no output; they are simulated with one token."
            )
        if overtaken:
            notes.append(
                f"{overtaken} recorded sub-agents ran on in the background past their parent's "
                "next call; simulated, that call waits for them."
            )
        return tuple(notes)

    def _error(self, problem: str, place: str) -> TraceError:
        return TraceError(problem, path=self._path, line=self._line, field=place)

    def _here(self) -> str:
        return "the session" if self._line is None else f"line {self._line}"

    def _session(self, recorded: RecordedSession) -> SessionScript:
        self._check_prefixes(recorded.requests)
        private_base = self._scopes.base("session", recorded.id)
        agent = _Agent(recorded.id, IdMap(), private_base)
        self._claim_trunks(recorded, agent.ids)
        return self._agent(agent, recorded.requests, start_delay_s=0.0)

    def _agent(
        self,
        agent: _Agent,
        entries: Sequence[RecordedCall | RecordedSubAgent],
        start_delay_s: float,
    ) -> SessionScript:
        calls = [entry for entry in entries if isinstance(entry, RecordedCall)]
        contexts = [agent.ids.translate(self._full(call), agent.private_base) for call in calls]
        children = self._children(agent, entries)
        turns = []
        for index, call in enumerate(calls):
            following = index + 1 if index + 1 < len(calls) else None
            turns.append(
                ScriptedTurn(
                    isl_tokens=call.isl,
                    osl_tokens=max(1, call.out),
                    gap_s=self._gap_s(calls, index, children),
                    block_id_runs=self._with_output(calls, contexts, index, following),
                    children=tuple(script for _, script in children[index]),
                    then=_GAPS.get(call.stop or "", NO_HINT),
                )
            )
            self._num_empty_outputs += call.out == 0
        return SessionScript(SessionId(agent.name), tuple(turns), start_delay_s)

    def _full(self, call: RecordedCall) -> tuple[BlockIdRun, ...]:
        """Return the ids of a prompt's full blocks; those not recorded are nobody else's."""
        num_full = call.isl // self.block_size_tokens
        runs = clipped(call.runs, 0, num_full)
        num_missing = num_full - num_blocks(runs)
        if not num_missing:
            return runs
        first = FIRST_UNKNOWN_ID + self._num_unknown_blocks
        self._num_unknown_blocks += num_missing
        return joined((*runs, (first, first + num_missing - 1)))

    def _check_prefixes(self, entries: Sequence[RecordedCall | RecordedSubAgent]) -> None:
        """Refuse ids that do not stand for whole prefixes, such as hashes of single blocks.

        Each id must come after the same id wherever it stands, so an id that heads a run is never
        inside another. An engine's prefix cache has no meaning for anything else.
        """
        heads: dict[int, tuple[int | None, str]] = {}
        inner: set[BlockIdRun] = set()
        for place, runs in _prompts(entries, "requests"):
            before: int | None = None
            for first, last in runs:
                elsewhere, _ = heads.setdefault(first, (before, place))
                if elsewhere != before:
                    raise self._error(_not_a_prefix(first, before, elsewhere), place)
                if first < last:
                    inner.add((first + 1, last))
                before = last
        in_order = sorted(inner)
        starts = [first for first, _ in in_order]
        reach = list(accumulate((last for _, last in in_order), max))
        for first, (before, place) in heads.items():
            index = bisect_right(starts, first) - 1
            if index >= 0 and reach[index] >= first:
                raise self._error(_not_a_prefix(first, before, first - 1), place)

    def _claim_trunks(self, recorded: RecordedSession | RecordedSubAgent, ids: IdMap) -> None:
        """Give each agent's leading blocks the ids they have in every session of its harness.

        A block is the tools' if it lies wholly in them, else the system prompt's if it lies wholly
        in tools and system prompt; the agent's first call shows its local id. All agents claim
        before any id is translated, so a local id means the same throughout the session.
        """
        calls = (entry for entry in recorded.requests if isinstance(entry, RecordedCall))
        self._claim_trunk((recorded.tool_tokens, recorded.system_tokens), next(calls), ids)
        for entry in recorded.requests:
            if isinstance(entry, RecordedSubAgent):
                self._claim_trunks(entry, ids)

    def _claim_trunk(self, trunk: Trunk, first_call: RecordedCall, ids: IdMap) -> None:
        tool_tokens, system_tokens = trunk
        num_tool = tool_tokens // self.block_size_tokens
        num_trunk = (tool_tokens + system_tokens) // self.block_size_tokens
        sections = (
            (0, num_tool, self._scopes.base("tools", tool_tokens)),
            (num_tool, num_trunk, self._scopes.base("system", tool_tokens, system_tokens)),
        )
        for start, stop, base in sections:
            target = base + start
            for first, last in clipped(first_call.runs, start, stop):
                wanted = (target, target + last - first)
                agreed = common_prefix(ids.translate([(first, last)], target - first), [wanted])
                if agreed:
                    ids.claim(first, first + agreed - 1, target)
                if agreed <= last - first:
                    # Another agent's trunk has this block, so what follows is not this trunk's.
                    return
                target += agreed

    def _children(
        self, agent: _Agent, entries: Sequence[RecordedCall | RecordedSubAgent]
    ) -> list[list[tuple[float, SessionScript]]]:
        """Return per call the sub-agents that follow it, each with the recorded time it ended.

        Sub-agents recorded before any call are taken to follow the first.
        """
        children: list[list[tuple[float, SessionScript]]] = []
        early: list[RecordedSubAgent] = []
        previous: RecordedCall | None = None
        for entry in entries:
            if isinstance(entry, RecordedCall):
                previous = entry
                children.append([])
                waiting, early = early, []
            elif previous is None:
                early.append(entry)
                continue
            else:
                waiting = [entry]
            for recorded in waiting:
                name = self._unused_name(f"{agent.name}/{recorded.agent_id}")
                child = replace(agent, name=name)
                delay_s = self._start_delay_s(previous, recorded)
                script = self._agent(child, recorded.requests, delay_s)
                children[-1].append((recorded.span_s[1], script))
        return children

    def _unused_name(self, wanted: str) -> str:
        """Return a sub-agent's id: the one wanted, numbered where it is taken."""
        name = wanted
        while name in self._names:
            self._repeats[wanted] = self._repeats.get(wanted, 1) + 1
            name = f"{wanted}.{self._repeats[wanted]}"
        self._names[name] = (f"a sub-agent in {self._here()}", self._path)
        return name

    def _start_delay_s(self, parent: RecordedCall, recorded: RecordedSubAgent) -> float:
        """A sub-agent starts some time after its parent's call."""
        if parent.api_time is None:
            return 0.0
        began_s, _ = recorded.span_s
        return min(max(0.0, began_s - parent.t - parent.api_time), self._max_gap_s)

    def _gap_s(
        self,
        calls: Sequence[RecordedCall],
        index: int,
        children: Sequence[Sequence[tuple[float, SessionScript]]],
    ) -> float:
        if index == 0:
            return 0.0
        call, previous = calls[index], calls[index - 1]
        previous_ended_s = previous.t + (previous.api_time or 0.0)
        joined_s = [ended_s for ended_s, _ in children[index - 1]]
        if joined_s:
            self._num_overtaken += sum(
                ended_s > call.t + CLOCK_RESOLUTION_S for ended_s in joined_s
            )
            # A sub-agent may end while its parent's call still runs; that time is no gap.
            gap_s = call.t - max(*joined_s, previous_ended_s)
        elif call.think_time is not None:
            gap_s = call.think_time
        else:
            gap_s = call.t - previous_ended_s
        return min(max(0.0, gap_s), self._max_gap_s)

    def _with_output(
        self,
        calls: Sequence[RecordedCall],
        contexts: Sequence[tuple[BlockIdRun, ...]],
        index: int,
        following: int | None,
    ) -> tuple[BlockIdRun, ...]:
        """Return a call's blocks, its output's included where the next prompt repeats them."""
        call, context = calls[index], contexts[index]
        if following is None or calls[following].isl < call.isl + call.out:
            return context
        num_prompt = call.isl // self.block_size_tokens
        if common_prefix(context, contexts[following]) < num_prompt:
            return context
        num_context = (call.isl + call.out) // self.block_size_tokens
        return joined((*context, *clipped(contexts[following], num_prompt, num_context)))


@dataclass(frozen=True, slots=True)
class _Agent:
    """Whose calls are being read: a session or one of its sub-agents, which share local ids."""

    name: str
    ids: IdMap
    private_base: int


def _prompts(
    entries: Sequence[RecordedCall | RecordedSubAgent], place: str
) -> Iterator[tuple[str, Sequence[BlockIdRun]]]:
    """Yield every prompt's local ids, sub-agents' included, and where they stand in the line."""
    for index, entry in enumerate(entries):
        if isinstance(entry, RecordedSubAgent):
            yield from _prompts(entry.requests, f"{place}[{index}].requests")
        else:
            field = "hash_ids" if entry.hash_runs is None else "hash_runs"
            yield f"{place}[{index}].{field}", entry.runs


def _not_a_prefix(block_id: int, before: int | None, elsewhere: int | None) -> str:
    here, there = ("nothing" if one is None else one for one in (before, elsewhere))
    return (
        f"expected ids of whole prefixes (chained hashes), found {block_id} after {here} here and "
        f"after {there} elsewhere"
    )
