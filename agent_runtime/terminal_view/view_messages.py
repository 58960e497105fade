"""The messages of a rack view, read: what a rack is like, once, then what changed, again and again.

Members that are not known are passed over, so a newer server may tell more.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from agent_runtime.errors import WireFormatError
from agent_runtime.rack_view.messages import VERSION, Frame, Layout
from agent_runtime.undecodable import UNDECODABLE

ViewMessage: TypeAlias = Layout | Frame


class _Head(msgspec.Struct):
    kind: str
    v: int = VERSION


_HEAD = msgspec.json.Decoder(_Head)
_MESSAGE: msgspec.json.Decoder[ViewMessage] = msgspec.json.Decoder(ViewMessage)


def read_message(data: bytes) -> ViewMessage | None:
    """Return a message; None for one of a kind that is of no interest here.

    Raises:
        WireFormatError: It is none, or of a version that is not known; names the member.
    """
    try:
        head = _HEAD.decode(data)
        if head.v != VERSION:
            raise WireFormatError(
                f"the server's rack view is of version {head.v}, and this panjiu reads version "
                f"{VERSION}: use the panjiu that the server is of"
            )
        return _MESSAGE.decode(data) if head.kind in {"layout", "frame"} else None
    except UNDECODABLE as error:
        raise WireFormatError(f"not a message of a rack view: {error}") from error
