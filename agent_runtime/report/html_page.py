"""The HTML page of a run: one file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.measurement.summary import Assumption, RunDetail
from agent_runtime.report.band_plot import BandPlot
from agent_runtime.report.markup import escaped
from agent_runtime.report.measures import DEFINITIONS, HEADLINES, MEASURES, SESSIONS_DONE, Measure
from agent_runtime.report.page_shell import assumption_table, document, section
from agent_runtime.report.replica_panel import replica_panel
from agent_runtime.report.run_charts import distribution_charts, kv_charts, load_charts
from agent_runtime.report.run_labels import RunLabel, base_index, label_runs, shared_traits

_MOST_PLOTTED = 3
_UNPUBLISHED = (
    "The HBM bandwidth and the FLOPS of the Zhenwu M890 are unpublished. No result can be more "
    "certain than they are, so every result is a band: <b>low</b> is the pessimistic machine, "
    "<b>base</b> the best guess, <b>high</b> the optimistic one. A latency is therefore longest "
    "on low."
)
_DISTRIBUTIONS = "Dots mark p50 and p99. Point at a chart to read it."
_KV = "What running turns hold, and above it what is kept for turns to come; mean over replicas."


def html_report(
    runs: Sequence[RunDetail],
    *,
    workload_name: str,
    workload_notes: Sequence[str],
    assumptions: Sequence[Assumption],
    command: str,
) -> str:
    """Return a self-contained page about ``runs``; the same input gives the same bytes.

    Args:
        runs: Compared side by side, e.g. one a band; headlines are of the base band.
        workload_name: What ran, as the user knows it.
        workload_notes: What a reader should know about how the workload was made.
        assumptions: The numbers about the hardware that the results rest on.
        command: The shell command that makes this page again.

    Raises:
        ValueError: There are no runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    labels = label_runs(runs)
    labelled = list(zip(labels, runs, strict=True))
    base = base_index(runs)
    body = [
        _heading(runs, labels, base, workload_name, command),
        _headlines(runs, labels, base),
        section("Every measure", _comparison(runs, labels, base), _ratio_lead(runs, labels, base)),
        section("How long things took", distribution_charts(labelled), _DISTRIBUTIONS),
        section("KV blocks over simulated time", kv_charts(labelled), _KV),
        section("Load over simulated time", load_charts(labelled)),
        _replicas(runs[base], f", {labels[base].name} run" if len(runs) > 1 else ""),
        section("What these numbers rest on", assumption_table(assumptions), _UNPUBLISHED),
        _definitions(),
        _notes(runs, labels, workload_notes),
    ]
    return document(f"Panjiu: {workload_name}", "".join(body))


def _replicas(run: RunDetail, which: str) -> str:
    panel = f'<div class="wide">{replica_panel(run.replicas)}</div>'
    return section(f"Replicas{which}", panel, escaped(run.deployment))


def _heading(
    runs: Sequence[RunDetail],
    labels: Sequence[RunLabel],
    base: int,
    workload_name: str,
    command: str,
) -> str:
    run = runs[base].summary
    names = ", ".join(escaped(label.name) for label in labels)
    seed = f", seed {run.seed}" if len({other.summary.seed for other in runs}) == 1 else ""
    once_each = f"; one run each for {names}" if len(runs) > 1 else ""
    sentence = (
        f"{run.sessions.total:,} agent sessions ({run.turns:,} model calls) of "
        f"<b>{escaped(workload_name)}</b> with <b>{escaped(shared_traits(runs))}</b>, emulated"
        f"{seed}{once_each}."
    )
    return (
        '<header>\n<p class="eyebrow">Panjiu simulation</p>\n'
        f"<h1>{escaped(workload_name)}</h1>\n"
        f'<p class="what">{sentence}</p>\n'
        f'<pre class="command" aria-label="Command to run this again"><code>{escaped(command)}'
        "</code></pre>\n</header>\n"
    )


def _headlines(runs: Sequence[RunDetail], labels: Sequence[RunLabel], base: int) -> str:
    cards = "".join(
        f'<div class="card"><dt>{measure.name}</dt>'
        f"<dd>{_big(measure, runs[base])}{_others(measure, runs, labels, base)}</dd></div>"
        for measure in HEADLINES
    )
    failed = [
        f"{run.summary.sessions.failed:,} sessions failed ({escaped(label.name)})"
        for label, run in zip(labels, runs, strict=True)
        if run.summary.sessions.failed
    ]
    warning = f'<p class="warning">{"; ".join(failed)}.</p>' if failed else ""
    return f'<dl class="cards">{cards}</dl>\n{warning}'


def _big(measure: Measure, run: RunDetail) -> str:
    return f'<span class="big">{escaped(measure.read(run.summary))}</span>'


def _others(
    measure: Measure, runs: Sequence[RunDetail], labels: Sequence[RunLabel], base: int
) -> str:
    """Return the same measure of the other runs, small; nothing when all say the same."""
    values = [measure.read(run.summary) for run in runs]
    if measure is SESSIONS_DONE and len(set(values)) == 1 and len(runs) > 1:
        return '<span class="range">in every run</span>'
    others = "".join(
        f"<span>{_named(label)} {escaped(value)}</span>"
        for index, (label, value) in enumerate(zip(labels, values, strict=True))
        if index != base
    )
    return f'<span class="range">{others}</span>' if others else ""


def _comparison(runs: Sequence[RunDetail], labels: Sequence[RunLabel], base: int) -> str:
    every = [measure for group in MEASURES for measure in group]
    plot = BandPlot.of(runs, labels, base, every) if _has_plot(runs) else None
    head = "".join(
        f'<th scope="col"{_mark(index, base)}>{_named(label)}</th>'
        for index, label in enumerate(labels)
    )
    head += f'<td class="band">{plot.scale()}</td>' if plot else ""
    bodies = []
    for group in MEASURES:
        rows = "".join(_comparison_row(measure, runs, base, plot) for measure in group)
        bodies.append(f"<tbody>{rows}</tbody>")
    return (
        f'<div class="wide"><table class="compare{" many" if plot else ""}">'
        f"<thead><tr><td></td>{head}</tr></thead>{''.join(bodies)}</table></div>"
    )


def _comparison_row(
    measure: Measure, runs: Sequence[RunDetail], base: int, plot: BandPlot | None
) -> str:
    cells = "".join(
        f"<td{_mark(index, base)}>{escaped(measure.read(run.summary))}</td>"
        for index, run in enumerate(runs)
    )
    cells += f'<td class="band">{plot.row(measure)}</td>' if plot else ""
    return f'<tr><th scope="row">{measure.name}</th>{cells}</tr>\n'


def _named(label: RunLabel) -> str:
    return f'<i class="swatch {label.css_class}"></i>{escaped(label.name)}'


def _has_plot(runs: Sequence[RunDetail]) -> bool:
    """Tell whether dots say more than the numbers do, and stand beside them on one page."""
    return 1 < len(runs) <= _MOST_PLOTTED


def _ratio_lead(runs: Sequence[RunDetail], labels: Sequence[RunLabel], base: int) -> str:
    if not _has_plot(runs):
        return ""
    return f"Dots show each run against {escaped(labels[base].name)}, on a log scale."


def _mark(index: int, base: int) -> str:
    return ' class="base"' if index == base else ""


def _definitions() -> str:
    items = "".join(f"<dt>{name}</dt><dd>{meaning}</dd>\n" for name, meaning in DEFINITIONS)
    return (
        "<section><details><summary><h2>What each measure means</h2></summary>"
        f'<dl class="definitions">{items}</dl></details></section>\n'
    )


def _notes(
    runs: Sequence[RunDetail], labels: Sequence[RunLabel], workload_notes: Sequence[str]
) -> str:
    """Return the notes; one that every run makes is said once, others name their run."""
    shared = [note for note in runs[0].notes if all(note in run.notes for run in runs)]
    notes = [escaped(note) for note in (*workload_notes, *shared)]
    notes += [
        f"<b>{escaped(label.name)}</b>: {escaped(note)}"
        for label, run in zip(labels, runs, strict=True)
        for note in run.notes
        if note not in shared
    ]
    if not notes:
        return ""
    items = "".join(f"<li>{note}</li>\n" for note in dict.fromkeys(notes))
    return section("Notes", f'<ul class="notes">{items}</ul>')
