"""Session scripts for tests."""

from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

BLOCK = 64


def growing_session(
    name: str,
    branch: int,
    *,
    num_turns: int = 4,
    start: int = 10_000,
    append: int = 900,
    output: int = 200,
    gap_s: float = 2.0,
    children: dict[int, tuple[SessionScript, ...]] | None = None,
    start_delay_s: float = 0.0,
) -> SessionScript:
    """A context that grows by ``append`` tokens a turn, its outputs part of the next prompt."""
    first = (branch + 1) << 32
    turns = []
    for number in range(num_turns):
        isl = start + number * (append + output)
        num_blocks = (isl + output) // BLOCK
        runs = ((first, first + num_blocks - 1),) if num_blocks else ()
        turns.append(
            ScriptedTurn(
                isl_tokens=isl,
                osl_tokens=output,
                gap_s=gap_s if number else 0.0,
                block_id_runs=runs,
                children=(children or {}).get(number, ()),
            )
        )
    return SessionScript(SessionId(name), tuple(turns), start_delay_s)


def workload(*sessions: SessionScript) -> Workload:
    return Workload("test", BLOCK, tuple(sessions))
