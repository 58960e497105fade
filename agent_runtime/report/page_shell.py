"""What every page shares: the frame of one self-contained file, sections, the assumptions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from agent_runtime.measurement.summary import Assumption
from agent_runtime.report.markup import escaped

_NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'"
_TRUST_WORDS = {
    "measured": "measured",
    "vendor": "vendor",
    "source_code": "source code",
    "press": "press",
    "inferred": "inferred",
    "assumed": "assumed",
}


def document(title: str, body: str) -> str:
    """Return a page that loads nothing: styles are inside, and a policy forbids the rest."""
    css = files("agent_runtime.report").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_NO_NETWORK}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str, lead_html: str = "") -> str:
    """Return a section; ``content`` and ``lead_html`` are markup, the title is text."""
    lead = f'<p class="lead">{lead_html}</p>' if lead_html else ""
    return f"<section>\n<h2>{escaped(title)}</h2>{lead}\n{content}\n</section>\n"


def assumption_table(assumptions: Sequence[Assumption]) -> str:
    """Return the numbers about the hardware with their bands, trust and sources."""
    if not assumptions:
        return '<p class="muted">No assumptions were given.</p>'
    rows = "".join(
        f'<tr><th scope="row">{escaped(item.name)}</th><td>{escaped(item.low)}</td>'
        f'<td class="base">{escaped(item.base)}</td><td>{escaped(item.high)}</td>'
        f'<td class="unit">{escaped(item.unit)}</td><td class="trust">{_badge(item.trust)}</td>'
        f'<td class="source">{escaped(item.source)}</td></tr>\n'
        for item in assumptions
    )
    return (
        '<div class="wide"><table class="assumptions"><thead><tr><td></td><th scope="col">low</th>'
        '<th scope="col" class="base">base</th><th scope="col">high</th><th scope="col">unit</th>'
        f'<th scope="col">trust</th><th scope="col">source</th></tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
    )


def _badge(trust: str) -> str:
    css = f"t-{trust}" if trust in _TRUST_WORDS else "t-other"
    return f'<span class="badge {css}">{escaped(_TRUST_WORDS.get(trust, trust))}</span>'
