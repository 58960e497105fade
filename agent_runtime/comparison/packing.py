"""Values on their way to worker processes.

Pickle fills frozen dataclasses field by field, which they refuse once they are compiled (``make
compile``). Here they are made anew from their fields, compiled or not.
"""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable
from typing import Any

from typing_extensions import override


def packed(value: object) -> bytes:
    """Return a value as bytes that another process of the same code can unpack."""
    buffer = io.BytesIO()
    _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    """Return what was packed; only for what this program packed itself."""
    return pickle.loads(data)  # noqa: S301 - our own bytes, from our own process


class _Packer(pickle.Pickler):
    """A pickler that has dataclasses made by calling them."""

    @override
    def reducer_override(self, obj: Any) -> Any:
        if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
            return NotImplemented
        fields = {each.name: getattr(obj, each.name) for each in dataclasses.fields(obj)}
        return _made, (type(obj), fields)


def _made(kind: Callable[..., object], fields: dict[str, object]) -> object:
    return kind(**fields)
