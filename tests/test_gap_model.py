"""When sessions come back: what is believed at first, what is learned, what users say."""

import math

import numpy as np
import pytest

from scheduler.events import GapCause, GapHint
from scheduler.gap_model import GapModel

TOOL, HUMAN = GapHint(GapCause.TOOL), GapHint(GapCause.HUMAN)


def test_before_any_sample_tools_are_taken_to_return_sooner_than_humans() -> None:
    model = GapModel()
    assert model.return_rate(TOOL, 0.0) > 5 * model.return_rate(HUMAN, 0.0)
    assert model.left_s(HUMAN, 0.0) > 86.0


def test_exponential_gaps_have_the_same_rate_however_long_they_last() -> None:
    model, rng = GapModel(), np.random.default_rng(0)
    for gap_s in rng.exponential(20.0, 20_000).tolist():
        model.observe(TOOL, gap_s)
    for elapsed_s in (0.0, 5.0, 20.0, 40.0):
        assert model.return_rate(TOOL, elapsed_s) == pytest.approx(1 / 20, rel=0.35)


def test_a_gap_that_outlasts_short_tools_is_taken_for_a_long_one() -> None:
    model = GapModel()
    for n in range(1000):
        model.observe(TOOL, 0.5 if n % 10 else 300.0)
    assert model.return_rate(TOOL, 0.0) > 20 * model.return_rate(TOOL, 5.0)
    assert model.left_s(TOOL, 5.0) == pytest.approx(300, rel=0.3)


def test_a_tool_with_few_samples_leans_on_all_tools_and_one_with_many_on_itself() -> None:
    model = GapModel()
    grep, build = GapHint(GapCause.TOOL, ("grep",)), GapHint(GapCause.TOOL, ("build",))
    for _ in range(500):
        model.observe(grep, 0.2)
    assert model.return_rate(build, 0.0) == model.return_rate(TOOL, 0.0), "never seen"
    model.observe(build, 120.0)
    once = model.return_rate(build, 1.0)
    for _ in range(200):
        model.observe(build, 120.0)
    assert model.left_s(build, 1.0) == pytest.approx(120, rel=0.3)
    assert model.return_rate(build, 1.0) != once
    together = GapHint(GapCause.TOOL, ("grep", "build"))
    assert model.return_rate(together, 0.0) == model.return_rate(build, 0.0), "all must end"


def test_what_the_user_says_overrides_what_was_learned_until_it_is_long_overrun() -> None:
    model = GapModel()
    for _ in range(200):
        model.observe(TOOL, 0.2)
    hinted = GapHint(GapCause.TOOL, expected_s=100.0)
    assert model.left_s(hinted, 0.0) == 100.0
    assert model.return_rate(hinted, 60.0) == pytest.approx(1 / 40)
    assert model.return_rate(hinted, 500.0) == model.return_rate(TOOL, 500.0)


def test_rates_are_finite_and_never_negative_for_any_gap() -> None:
    model = GapModel()
    for gap_s in (0.0, 1e-9, 1.0, 1e4, 1e9):
        model.observe(TOOL, gap_s)
        for elapsed_s in (0.0, 0.1, 1.0, 1e3, 1e6, 1e12):
            rate = model.return_rate(TOOL, elapsed_s)
            assert math.isfinite(rate)
            assert rate >= 0
