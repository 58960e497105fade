"""A load test as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.report import quantities
from agent_runtime.report.load_charts import distributions, over_time
from agent_runtime.report.load_words import COLUMNS, LATENCIES, counts, facts, title
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import document, section


def load_page(summary: LoadSummary, command: str) -> str:
    """Return the page; the same input gives the same bytes.

    Args:
        summary: What it is about.
        command: That makes it again.
    """
    body = [_header(summary, command)]
    if summary.warnings:
        body.append(section("Beware", _items(summary.warnings)))
    body += [
        section("Latencies", latency_table([("", summary)])),
        section("Counts", _counts(summary)),
        section("How long things took", distributions([("turns", summary)])),
        section("Over time", over_time(summary), _window(summary)),
    ]
    if summary.errors:
        body.append(section("Errors", _errors(summary)))
    body.append(section("How it was measured", _items((*facts(summary), *summary.notes))))
    meanings = "".join(
        f"<dt>{escaped(one.name)}</dt><dd>{escaped(one.meaning)}</dd>\n" for one in LATENCIES
    )
    body.append(section("What each measure means", f'<dl class="definitions">{meanings}</dl>'))
    return document(f"Panjiu load test: {summary.inputs.workload}", "".join(body))


def latency_table(summaries: Sequence[tuple[str, LoadSummary]]) -> str:
    """Return a row a latency and run; labels are left out where they are empty."""
    head = "".join(f'<th scope="col">{column}</th>' for column in COLUMNS)
    rows = "".join(
        f'<tr><th scope="row">{escaped(f"{latency.name} {label}".strip())}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in latency.cells(summary))
        + "</tr>\n"
        for latency in LATENCIES
        for label, summary in summaries
    )
    return (
        '<div class="wide"><table class="compare"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _header(summary: LoadSummary, command: str) -> str:
    stopped = " Interrupted: what was seen until then." if summary.interrupted else ""
    return (
        '<header>\n<p class="eyebrow">Panjiu load test</p>\n'
        f"<h1>{escaped(summary.inputs.workload)}</h1>\n"
        f'<p class="what">{escaped(title(summary))}.{stopped}</p>\n'
        f'<pre class="command" aria-label="Command to run this again"><code>{escaped(command)}'
        "</code></pre>\n</header>\n"
    )


def _counts(summary: LoadSummary) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(value)}</td></tr>\n'
        for name, value in counts(summary)
    )
    return f'<div class="wide"><table class="compare"><tbody>{rows}</tbody></table></div>'


def _errors(summary: LoadSummary) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escaped(error.kind)}</th><td>{error.count:,}</td>'
        f"<td>{escaped(quantities.seconds(error.first_s))}</td>"
        f'<td class="source">{escaped(error.example)}</td></tr>\n'
        for error in summary.errors
    )
    return (
        '<div class="wide"><table class="assumptions"><thead><tr><td></td>'
        '<th scope="col">count</th><th scope="col">first at</th><th scope="col">the first</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _window(summary: LoadSummary) -> str:
    start, end = summary.window.start_s, summary.window.end_s
    return f"From {start:.1f} s to {end:.1f} s counts."


def _items(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escaped(text)}</li>\n" for text in texts)
    return f'<ul class="notes">{items}</ul>'
