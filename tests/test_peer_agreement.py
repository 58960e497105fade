"""Our engine beside AISimulate's, an independent one in Rust, on the same requests.

``data/peer_agreement.json`` says how the peer's numbers were made, and
``benchmarks/engine/agreement.py`` makes them anew.
"""

import json
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.engine.agreement import AgreementCase, Load, checksum, trace_of
from benchmarks.engine.request_load import Case, Means, Outcome, replicas, run_requests

RECORDED = {
    case["name"]: case
    for case in json.loads((Path(__file__).parent / "data" / "peer_agreement.json").read_text())[
        "cases"
    ]
}
SATURATED = "KV is always full"


def recorded(name: str) -> tuple[AgreementCase, Means]:
    case = RECORDED[name]
    return (
        AgreementCase(name, Load(**case["load"]), Case(**case["case"])),
        Means(**case["peer_means"]),
    )


def run(each: AgreementCase, **how: bool) -> Outcome:
    requests = trace_of(each.load)
    assert checksum(requests) == RECORDED[each.name]["trace_sha256"], "record the fixture anew"
    return run_requests(replicas(each.case, **how), requests)


@pytest.mark.parametrize("name", RECORDED)
def test_means_are_within_a_hundredth_of_the_peers(name: str) -> None:
    each, theirs = recorded(name)
    assert astuple(run(each).means) == pytest.approx(astuple(theirs), rel=0.01)


@pytest.mark.parametrize("name", RECORDED)
def test_where_steps_cost_what_they_cost_the_peer_every_mean_is_equal(name: str) -> None:
    each, theirs = recorded(name)
    ours = run(each, peer_prices=True).means
    assert astuple(ours) == pytest.approx(astuple(theirs), rel=1e-6)


def test_stepping_every_token_agrees_as_well() -> None:
    each, theirs = recorded(SATURATED)
    outcome = run(each, peer_prices=True, macro_stepping=False)
    assert astuple(outcome.means) == pytest.approx(astuple(theirs), rel=1e-6)
    assert outcome.num_preemptions > 1_000


def test_the_cases_preempt_wait_and_hit_the_cache() -> None:
    outcomes = {name: run(recorded(name)[0]) for name in (SATURATED, "few sequences at once")}
    assert outcomes[SATURATED].num_cached_tokens > 0
    assert outcomes["few sequences at once"].means.ttft_s > 10
