"""The page that shows a view of the rack, live or from a recording: one document, loading nothing.

Its parts are in ``assets``: markup, styles, and JavaScript modules, which are put together here in
the order below as one module, without a build step.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

MODULES = (
    "quantities",
    "elements",
    "rack_model",
    "recording",
    "live_stream",
    "geometry",
    "session_dots",
    "kv_arrows",
    "rack_canvas",
    "rack_picture",
    "time_chart",
    "receipt_panel",
    "replica_views",
    "theme",
    "player",
    "headline",
    "frame_meter",
    "dashboard",
    "main",
)
"""Every module after those that it imports."""

_COMMENT = re.compile(r"^ *(?://[^\n]*|/\*\*.*?\*/)\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^\s+", re.MULTILINE)
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def dashboard_page(recording: bytes | None = None) -> str:
    """Return the page as one HTML document.

    Its content security policy names its own script and styles by their hashes and forbids
    everything else; a live page may talk to the server that it came from, a recording to nobody.

    Args:
        recording: Messages as gzipped JSON lines; None for a page that reads ``view/stream``,
            beside itself.
    """
    script, style = _script(), _INDENT.sub("", _asset("page.css"))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "connect-src 'self'" if recording is None else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    parts = {
        "policy": policy,
        "style": style,
        "script": script,
        "recording": "" if recording is None else _element(recording),
    }
    return _PLACE.sub(lambda place: parts[place.group(1)], _asset("page.html"))


def _element(recording: bytes) -> str:
    data = b64encode(recording).decode("ascii")
    return f'<script type="application/octet-stream;base64" id="recording">{data}</script>\n'


@cache
def _script() -> str:
    """Put the modules together: what one exports the next ones see, for they share a scope.

    Whole-line comments and indents stay behind: no line of a module begins inside a string.
    """
    together = "".join(_EXPORT.sub("", _IMPORT.sub("", _asset(f"{name}.js"))) for name in MODULES)
    return _INDENT.sub("", _COMMENT.sub("", together))


@cache
def _asset(name: str) -> str:
    return files("agent_runtime.rack_view").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode('ascii')}"
