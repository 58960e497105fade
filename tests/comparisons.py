"""Small comparisons for tests, and results made up."""

from collections.abc import Sequence

from agent_runtime.comparison.capacity import rack_capacity
from agent_runtime.comparison.cell import Bench, Cell, CellResult
from agent_runtime.comparison.outcome import Outcome
from hw_model.claim import Band
from scheduler.policy import Policy
from tests.engines import deployment
from tests.scripts import growing_session, workload


def bench() -> Bench:
    sessions = workload(*(growing_session(f"s{n}", n, start=3000 * (n + 1)) for n in range(6)))
    plan = deployment("qwen3-8b", num_replicas=2)
    capacity = rack_capacity(sessions, plan, Band.BASE)
    return Bench(sessions, plan, capacity, Band.BASE)


def result(policy: str, seed: int, jct_s: float, load: float = 1.0) -> CellResult:
    fields = dict.fromkeys(CellResult.model_fields, 0)
    return CellResult.model_validate(
        {**fields, "policy": policy, "load": load, "seed": seed, "jct_mean_s": jct_s}
    )


def outcome(results: Sequence[CellResult]) -> Outcome:
    cells = [Cell(r.policy, r.load, r.seed) for r in results]
    return Outcome(bench(), cells, results, [], "panjiu")


def broken(_: object) -> Policy:
    raise ZeroDivisionError("by design")
