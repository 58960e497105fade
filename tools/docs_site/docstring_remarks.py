"""Keeps the remarks of our docstrings whole in the API reference.

An extension of griffe (``mkdocs.yml``). Google's style takes ``Invariant: ...`` and the like for
the title of a box and tears the sentence apart at the end of the line.
"""

from __future__ import annotations

import re
from typing import Any

import griffe
from typing_extensions import override

_REMARK = re.compile(
    r"^(?P<indent> *)(?P<name>Invariant|Cost|Source|Guarantees): "
    r"(?P<text>.*(?:\n(?P=indent) +\S.*)*)",
    re.MULTILINE,
)


class DocstringRemarks(griffe.Extension):
    """Makes a paragraph of each."""

    @override
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a thing that was read."""
        if obj.docstring is not None:
            obj.docstring.value = _REMARK.sub(_paragraph, obj.docstring.value)


def _paragraph(remark: re.Match[str]) -> str:
    text = " ".join(remark["text"].split())
    return f"{remark['indent']}**{remark['name']}.** {text}"
