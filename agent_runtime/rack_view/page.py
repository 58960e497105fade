"""The page that shows a view of the rack, live or from a recording."""

from __future__ import annotations

from base64 import b64encode


def dashboard_page(recording: bytes | None = None) -> str:
    """Return the page as one HTML document.

    Args:
        recording: Messages as gzipped JSON lines; None for a page that reads ``/view/stream``.
    """
    element = ""
    if recording is not None:
        data = b64encode(recording).decode("ascii")
        element = f'<script type="application/octet-stream;base64" id="recording">{data}</script>'
    return f'<!doctype html><html lang="en"><title>Panjiu</title><body>{element}</body></html>\n'
