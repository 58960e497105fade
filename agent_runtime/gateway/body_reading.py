"""Reads a request's body, up to a limit."""

from __future__ import annotations

from starlette.requests import Request

from agent_runtime.errors import BodyTooLargeError


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        BodyTooLargeError: Over the limit.
        ClientDisconnect: The client left.
    """
    declared = request.headers.get("content-length", "")
    body = bytearray()
    too_large = declared.isdecimal() and int(declared) > limit
    if not too_large:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                too_large = True
                break
    if too_large:
        raise BodyTooLargeError(f"the body is over the limit of {limit} bytes")
    return bytes(body)
