"""Two load tests beside each other as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.load_test.comparison import RunRatio
from agent_runtime.load_test.summary import LoadSummary
from agent_runtime.report import quantities
from agent_runtime.report.load_charts import distributions
from agent_runtime.report.load_words import title
from agent_runtime.report.markup import escaped
from agent_runtime.report.page_shell import document, section

_LEAD = (
    "B over A, with the 95 % interval of a bootstrap over sessions: below 1 a time is shorter in B."
)


def ratio_words(one: RunRatio) -> tuple[str, str, str]:
    """Return a measure of A, of B, and their ratio with its interval, as people read them."""
    if one.is_time:
        a, b = quantities.seconds(one.a), quantities.seconds(one.b)
    elif one.name.endswith("share"):
        a, b = quantities.ratio(one.a), quantities.ratio(one.b)
    else:
        a, b = (
            quantities.MISSING if value is None else f"{value:,.4g}" for value in (one.a, one.b)
        )
    if one.ratio is None:
        return a, b, quantities.MISSING
    interval = "" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]"
    return a, b, f"{one.ratio:.2f}{interval}"


def load_comparison_page(
    a: LoadSummary,
    b: LoadSummary,
    ratios: Sequence[RunRatio],
    differing: Sequence[str],
    command: str,
) -> str:
    """Return the page; the same input gives the same bytes.

    Args:
        a: One run.
        b: The other.
        ratios: Of B over A.
        differing: What was not asked of both.
        command: That makes it again.
    """
    warnings = [f"not the same: {text}" for text in differing]
    warnings += [f"{name}: {text}" for name, run in (("A", a), ("B", b)) for text in run.warnings]
    items = "".join(f"<li>{escaped(text)}</li>\n" for text in warnings)
    header = (
        '<header>\n<p class="eyebrow">Panjiu load tests</p>\n<h1>A and B</h1>\n'
        f'<p class="what">A: {escaped(title(a))}. B: {escaped(title(b))}.</p>\n'
        f'<pre class="command"><code>{escaped(command)}</code></pre>\n</header>\n'
    )
    body = [header]
    if items:
        body.append(section("Beware", f'<ul class="notes">{items}</ul>'))
    body += [
        section("Ratios", _table(ratios), _LEAD),
        section("How long things took", distributions([("A", a), ("B", b)])),
    ]
    return document("Panjiu: two load tests", "".join(body))


def _table(ratios: Sequence[RunRatio]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escaped(one.name)}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in ratio_words(one))
        + "</tr>\n"
        for one in ratios
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("A", "B", "B / A"))
    return (
        f'<div class="wide"><table class="compare"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
