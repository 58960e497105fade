"""What people read after a run: the table and the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from typing_extensions import override

from agent_runtime.measurement.summary import (
    Assumption,
    Distribution,
    ReplicaStats,
    RunDetail,
    RunSummary,
    SessionCounts,
    Slowdown,
    Timeline,
    UsedRatio,
)
from agent_runtime.report.html_page import html_report
from agent_runtime.report.run_labels import label_runs
from agent_runtime.report.table import summary_table

HOSTILE = '<script>alert(\'x\')</script>"><img src="http://evil.example/a.png">&\x00\ud800'
VOID = {"meta", "br", "img", "link", "input", "hr"}
NO_SLOWDOWN = Slowdown(mean=None, p99=None, max=None)
ASSUMPTIONS = (
    Assumption("HBM bandwidth", "2.8", "4.0", "4.8", "TB/s", "unpublished; 6 stacks", "inferred"),
    Assumption("HBM capacity", "144", "144", "144", "GB", "vendor's summit", "vendor"),
)


def fake_run(
    band="base", *, policy="panjiu", num_turns=2_000, num_samples=1_500, num_replicas=32, notes=()
):
    rng = np.random.default_rng(7)
    slower = {"low": 2.0, "base": 1.0, "high": 0.6}[band]
    ttft_s = rng.lognormal(-1.0, 1.1, num_turns) * slower
    tpot_s = rng.lognormal(-3.9, 0.3, num_turns) * slower
    jct_s = rng.lognormal(6.5, 0.7, num_turns // 10) * slower
    time_s = np.linspace(0, 5_000 * slower, num_samples)
    used, active = rng.uniform(0.6, 1.0, num_samples), rng.uniform(0.0, 0.6, num_samples)
    summary = RunSummary(
        policy=policy,
        model="qwen3-235b-a22b",
        rack="panjiu-al128",
        band=band,
        seed=0,
        ttft_boundary="client",
        sessions=SessionCounts(total=256, completed=254, failed=2),
        turns=num_turns,
        simulated_s=3_725.0,
        wall_s=2.0,
        turns_per_wall_s=num_turns / 2,
        jct_s=Distribution.of(jct_s),
        ttft_s=Distribution.of(ttft_s),
        tpot_s=Distribution.of(tpot_s),
        slowdown=Slowdown(mean=1.42, p99=4.1, max=9.0) if num_turns else NO_SLOWDOWN,
        prefix_hit_ratio=0.934,
        recomputed_tokens=1_250_000,
        preemptions=12,
        pulled_bytes=3_400_000_000,
        host_loaded_tokens=1_000,
        hbm_used_ratio=UsedRatio(mean=0.861, max=1.0),
    )
    replicas = tuple(
        ReplicaStats(i, 100 + i, float(rng.uniform(0.4, 1)), 0.9, float(rng.uniform(0.4, 1)))
        for i in range(num_replicas)
    )
    timeline = Timeline(time_s, used, active, np.floor(active * 90), np.floor(used * 300))
    return RunDetail(
        summary, ttft_s, tpot_s, jct_s, timeline, replicas, "32 replicas of TP4", tuple(notes)
    )


def bands():
    return [fake_run("low"), fake_run("base"), fake_run("high")]


def page_of(runs, *, workload_name="coding-agents", command="panjiu simulate", **changes):
    return html_report(
        runs,
        workload_name=workload_name,
        workload_notes=changes.get("workload_notes", ("Drawn from published distributions.",)),
        assumptions=changes.get("assumptions", ASSUMPTIONS),
        command=command,
    )


def printed(runs, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(summary_table(runs))
    return capture.get()


def row_of(text, name):
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return re.split(r"\s{2,}", line.strip())[1:]


def svgs_in(page):
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314 - our own text


class Balance(HTMLParser):
    """Fails on a tag closed out of order; collects tags, attributes and text."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text = [], [], []

    @override
    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    @override
    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    @override
    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


# the table


def test_the_table_has_a_column_a_run_and_says_known_values():
    text = printed(bands())
    assert "panjiu policy, qwen3-235b-a22b on panjiu-al128" in text
    assert row_of(text, "sessions done") == ["254/256"] * 3
    assert row_of(text, "slowdown mean") == ["1.42x"] * 3
    assert row_of(text, "prefix hit") == ["93.4 %"] * 3
    assert row_of(text, "HBM use max") == ["100 %"] * 3
    assert row_of(text, "recomputed tokens") == ["1.25 M"] * 3
    assert row_of(text, "KV pulled") == ["3.40 GB"] * 3
    assert row_of(text, "simulated time") == ["1 h 02 m"] * 3
    assert row_of(text, "speed") == ["1,000 turns/s"] * 3
    assert all(band in text for band in ("low", "base", "high"))


def test_the_table_of_three_bands_fits_in_80_columns():
    assert max(len(line) for line in printed(bands(), width=200).splitlines()) <= 80


def test_the_table_shows_a_dash_where_nothing_finished():
    text = printed([fake_run(num_turns=0)])
    for name in ("JCT mean", "TTFT p99", "TPOT p50", "slowdown p99"):
        assert row_of(text, name) == ["\N{EN DASH}"]


def test_a_policy_name_that_looks_like_markup_is_shown_as_it_is():
    assert "[red]x[/red]" in printed([fake_run(policy="[red]x[/red]")])


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="at least one run"):
        summary_table([])
    with pytest.raises(ValueError, match="at least one run"):
        page_of([])


# what runs are called


def test_runs_are_named_by_what_tells_them_apart():
    assert [label.name for label in label_runs(bands())] == ["low", "base", "high"]
    policies = [fake_run(policy="panjiu"), fake_run(policy="round_robin")]
    assert [label.name for label in label_runs(policies)] == ["panjiu", "round_robin"]
    twins = label_runs([fake_run(), fake_run()])
    assert len({label.name for label in twins}) == 2


def test_a_hostile_band_never_becomes_a_css_class():
    summary = fake_run().summary.model_copy(update={"band": HOSTILE, "policy": HOSTILE})
    run = fake_run()
    hostile = RunDetail(
        summary, run.ttft_s, run.tpot_s, run.jct_s, run.timeline, run.replicas, "", ()
    )
    assert label_runs([hostile])[0].css_class == "c-base"


# the page


def test_the_page_is_well_formed_and_small():
    page = page_of(bands())
    seen = {tag for tag, _ in parsed(page).seen}
    assert {"h1", "table", "svg", "details", "pre"} <= seen
    svgs = svgs_in(page)
    assert len(svgs) >= 10
    assert len(page.encode()) < 300_000


def test_the_page_loads_nothing_from_anywhere():
    page = page_of(bands())
    for tag, attributes in parsed(page).seen:
        assert tag not in {"script", "link", "iframe", "img", "object", "embed"}
        assert not {"src", "href", "srcset", "action", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in page
    assert "@import" not in page
    without_namespaces = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://", without_namespaces)
    assert "default-src 'none'" in page


def test_the_page_escapes_whatever_others_named():
    summary = fake_run().summary.model_copy(
        update={"policy": HOSTILE, "model": HOSTILE, "rack": HOSTILE, "band": HOSTILE}
    )
    run = fake_run(notes=(HOSTILE,))
    hostile = RunDetail(
        summary, run.ttft_s, run.tpot_s, run.jct_s, run.timeline, run.replicas, HOSTILE, (HOSTILE,)
    )
    fields = (HOSTILE,) * 7
    page = page_of(
        [hostile, fake_run("low")],
        workload_name=HOSTILE,
        command=HOSTILE,
        workload_notes=(HOSTILE,),
        assumptions=(Assumption(*fields),),
    )
    page.encode("utf-8")
    parser = parsed(page)
    assert not {"script", "img"} & {tag for tag, _ in parser.seen}
    assert "<script" not in page
    assert "\x00" not in page
    assert "alert('x')" in "".join(parser.text)
    assert svgs_in(page)


def test_the_same_runs_make_the_same_bytes():
    assert page_of(bands()) == page_of(bands())


def test_the_page_says_what_ran_how_to_rerun_it_and_what_it_rests_on():
    page = page_of(bands(), command="panjiu simulate --band all --seed 0")
    text = "".join(parsed(page).text)
    assert "panjiu simulate --band all --seed 0" in text
    assert "M890 are unpublished" in text
    assert "32 replicas of TP4" in text
    assert "2 sessions failed (low); 2 sessions failed (base)" in text
    assert "Drawn from published distributions." in text
    for term in ("JCT", "TTFT", "TPOT", "Slowdown", "Prefix hit", "Recomputed tokens", "HBM use"):
        assert f"<dt>{term}</dt>" in page
    assert 'class="badge t-inferred">inferred<' in page


def test_a_note_of_every_run_is_said_once_and_others_name_their_run():
    runs = [fake_run("low", notes=("both", "slow")), fake_run("high", notes=("both",))]
    page = page_of(runs)
    assert page.count("<li>both</li>") == 1
    assert "<li><b>low</b>: slow</li>" in page


@pytest.mark.parametrize("num_runs", [1, 2, 3])
def test_a_page_of_runs_in_which_nothing_happened_survives(num_runs):
    runs = [
        fake_run(band, num_turns=0, num_samples=0, num_replicas=0)
        for band in ("base", "low", "high")[:num_runs]
    ]
    page = page_of(runs, workload_notes=(), assumptions=())
    parsed(page)
    svgs_in(page)
    assert "nothing was measured" in page
    assert "No replicas were recorded" in page


def test_one_run_stands_alone_without_ranges_or_ratios():
    page = page_of([fake_run()])
    assert 'class="range"' not in page
    assert 'class="band"' not in page


def test_several_policies_are_compared_like_bands():
    page = page_of([fake_run(policy=f"policy-{number}") for number in range(7)])
    parsed(page)
    assert all(f"policy-{number}" in page for number in range(7))


def test_five_policies_still_fit_in_80_columns():
    text = printed([fake_run(policy=f"policy-{number}") for number in range(5)])
    assert "5 policies, qwen3-235b-a22b on panjiu-al128" in text
    assert row_of(text, "sessions done") == ["254/256"] * 5
