"""A comparison as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.comparison.outcome import Outcome
from agent_runtime.measurement.summary import Assumption
from agent_runtime.report.bench_charts import legend, load_charts, trade_charts
from agent_runtime.report.bench_measures import ALL, PAGE, Row, best, rows, spread, written
from agent_runtime.report.bench_words import cautions, facts, ratio_words, verdict_lines
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import assumption_table, document, section
from scheduler.policies import POLICIES

_TABLES = (
    "Means over seeds, with half the 95 % interval. The last column is mean JCT over the "
    "baseline's, seed by seed. The best of each column is bold; a bound knows the future and is "
    "nobody's rival."
)
_TRADE = (
    "Who finishes sessions soonest on average, and who lets some wait for it: lower left is best."
)
_UNPUBLISHED = (
    "Much about the M890 is not published; trust the comparison of policies more than the "
    "seconds, and run it again with <b>--band low</b> and <b>--band high</b>."
)


@dataclass(frozen=True, slots=True)
class BenchPage:
    """What the page is about.

    Attributes:
        outcome: The comparison.
        assumptions: About the hardware.
        command: That makes the page again.
    """

    outcome: Outcome
    assumptions: Sequence[Assumption]
    command: str


def bench_page(page: BenchPage) -> str:
    """Return the page; the same input gives the same bytes."""
    outcome = page.outcome
    body = [_header(page), _in_short(outcome)]
    by_load = load_charts(outcome)
    if by_load:
        body.append(section("By load", by_load, legend(outcome)))
    if outcome.loads:
        body.append(section("Means against tails", trade_charts(outcome), _TRADE))
    for number, load in enumerate(outcome.loads):
        content = _table(outcome, load) + _every_measure(outcome, load)
        body.append(section(f"Load {load:g}", content, _TABLES if number == 0 else ""))
    body.append(section("The policies", _policies(outcome)))
    body.append(
        section("What these numbers rest on", assumption_table(page.assumptions), _UNPUBLISHED)
    )
    return document("Panjiu: policies beside each other", "".join(body))


def _header(page: BenchPage) -> str:
    bench, outcome = page.outcome.bench, page.outcome
    num_seeds = len({cell.seed for cell in outcome.cells})
    model, rack = bench.deployment.model.title, bench.deployment.rack.title
    what = (
        f"{len(outcome.policies)} policies, {num_seeds} seeds each, on sessions of "
        f"<b>{escaped(bench.workload.name)}</b> with <b>{escaped(model)}</b> on "
        f"{escaped(rack)}, {escaped(bench.band.value)} band, emulated."
    )
    lines = "".join(f"<li>{escaped(line)}</li>\n" for line in facts(bench))
    return (
        '<header>\n<p class="eyebrow">Panjiu comparison</p>\n<h1>Policies beside each other</h1>\n'
        f'<p class="what">{what}</p>\n'
        f'<pre class="command" aria-label="Command to make this page again"><code>'
        f'{escaped(page.command)}</code></pre>\n<ul class="notes">{lines}</ul></header>\n'
    )


def _in_short(outcome: Outcome) -> str:
    verdicts = [line for load in outcome.loads for line in verdict_lines(outcome, load)]
    lines = [escaped(line) for line in verdicts]
    lines += [f"<b>Beware.</b> {escaped(line)}" for line in cautions(outcome)]
    lines += [
        f"<b>Failed.</b> {escaped(f'{f.cell.policy} at load {f.cell.load:g}, ')}"
        f"{escaped(f'seed {f.cell.seed}: {f.error}')}"
        for f in outcome.failed
    ]
    items = "".join(f"<li>{line}</li>\n" for line in lines)
    return section("In short", f'<ul class="notes">{items}</ul>') if items else ""


def _table(outcome: Outcome, load: float) -> str:
    found = rows(outcome, load, PAGE)
    bests = [best(found, index, column.sign) for index, column in enumerate(PAGE)]
    head = "".join(f'<th scope="col">{escaped(column.title)}</th>' for column in PAGE)
    body = "".join(_table_row(row, bests) for row in found)
    return (
        f'<div class="wide"><table class="bench"><thead><tr><td></td>{head}'
        f'<th scope="col">JCT to {escaped(outcome.baseline)}</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _table_row(row: Row, bests: Sequence[float | None]) -> str:
    cells = "".join(
        f"<td{_mark(row, index, least)}>{escaped(written(column, row.estimates[index]))}"
        f"<small>{spread(row.estimates[index])}</small></td>"
        for index, (column, least) in enumerate(zip(PAGE, bests, strict=True))
    )
    ratio = "" if row.to_baseline is None else ratio_words(row.to_baseline)
    return (
        f'<tr{" class=bound" if row.is_bound else ""}><th scope="row">{_named(row)}</th>{cells}'
        f"<td>{escaped(ratio)}</td></tr>\n"
    )


def _every_measure(outcome: Outcome, load: float) -> str:
    found = rows(outcome, load, ALL)
    head = "".join(f'<th scope="col">{_named(row)}</th>' for row in found)
    lines = []
    for index, column in enumerate(ALL):
        least = best(found, index, column.sign)
        cells = "".join(
            f"<td{_mark(row, index, least)}>{escaped(written(column, row.estimates[index]))}</td>"
            for row in found
        )
        lines.append(f'<tr><th scope="row">{escaped(column.title)}</th>{cells}</tr>\n')
    return (
        f'<details class="more"><summary>Every measure at load {load:g}</summary>'
        f'<div class="wide"><table class="compare"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _mark(row: Row, index: int, least: float | None) -> str:
    value = row.estimates[index]
    is_best = value is not None and value.mean == least and not row.is_bound
    return ' class="base"' if is_best else ""


def _named(row: Row) -> str:
    return f"{escaped(row.policy)}{' (bound)' if row.is_bound else ''}"


def _policies(outcome: Outcome) -> str:
    body = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td class="source">'
        f'{escaped(POLICIES[name].source)}</td><td class="source">'
        f"{escaped(POLICIES[name].settings)}</td></tr>\n"
        for name in outcome.policies
    )
    return (
        '<div class="wide"><table class="assumptions policies"><thead><tr><td></td>'
        '<th scope="col">source</th><th scope="col">set to, and why</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
