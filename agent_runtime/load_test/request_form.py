"""How a request asks for a reply's length and for usage, in the form that the server takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from agent_runtime.session_headers import header_of


class ReplyLength(StrEnum):
    """What decides how long replies are."""

    AUTO = "auto"
    EXACT = "exact"
    CAP = "cap"
    NATURAL = "natural"


class SessionIdentity(StrEnum):
    """How a request says which session it belongs to."""

    HEADER = "header"
    BODY = "body"
    CACHE_KEY = "prompt-cache-key"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestForm:
    """What stands in a body beside model and messages.

    Attributes:
        exact: Whether vLLM's ``ignore_eos`` and ``min_tokens`` fix the reply's length.
        cap_field: What limits it: ``max_tokens``, ``max_completion_tokens``, or nothing.
        usage: Whether to ask for the usage at the end.
        continuous: Whether to ask for it in every chunk, too (vLLM's).
    """

    exact: bool
    cap_field: str | None
    usage: bool
    continuous: bool

    def fields(self, num_tokens: int) -> dict[str, Any]:
        """Return them for a reply of about so many tokens."""
        fields: dict[str, Any] = {"stream": True}
        if self.usage:
            options = {"include_usage": True}
            if self.continuous:
                options["continuous_usage_stats"] = True
            fields["stream_options"] = options
        if self.cap_field is not None:
            fields[self.cap_field] = num_tokens
        if self.exact:
            fields |= {"min_tokens": num_tokens, "ignore_eos": True}
        return fields

    def describe(self) -> str:
        """Return what a report says of replies' lengths."""
        if self.exact:
            return "as scripted (ignore_eos, min_tokens)"
        if self.cap_field is not None:
            return f"the model's own, at most as scripted ({self.cap_field})"
        return "the model's own"


def forms(wanted: ReplyLength) -> list[RequestForm]:
    """Return the forms to try, the one that tells most first."""
    exact = [
        RequestForm(exact=True, cap_field="max_tokens", usage=True, continuous=True),
        RequestForm(exact=True, cap_field="max_tokens", usage=True, continuous=False),
    ]
    capped = [
        RequestForm(exact=False, cap_field="max_tokens", usage=True, continuous=True),
        RequestForm(exact=False, cap_field="max_tokens", usage=True, continuous=False),
        RequestForm(exact=False, cap_field="max_completion_tokens", usage=True, continuous=False),
        RequestForm(exact=False, cap_field="max_tokens", usage=False, continuous=False),
    ]
    natural = [
        RequestForm(exact=False, cap_field=None, usage=True, continuous=True),
        RequestForm(exact=False, cap_field=None, usage=True, continuous=False),
        RequestForm(exact=False, cap_field=None, usage=False, continuous=False),
    ]
    match wanted:
        case ReplyLength.AUTO:
            return exact + capped
        case ReplyLength.EXACT:
            return exact
        case ReplyLength.CAP:
            return capped
        case ReplyLength.NATURAL:
            return natural


@dataclass(frozen=True, slots=True)
class RequestMaker:
    """Makes requests.

    Attributes:
        model: What to ask for.
        form: As the server takes it.
        identity: How sessions are named.
        session_header: The header that names them, if one does.
        more: Fields of every body, above all others.
        headers: Of every request.
    """

    model: str
    form: RequestForm
    identity: SessionIdentity
    session_header: str
    more: Mapping[str, Any]
    headers: Mapping[str, str]

    def body(self, session_id: str | None, messages: bytes, num_tokens: int) -> bytes:
        """Return a body; ``messages`` are encoded, without brackets."""
        fields = self.form.fields(num_tokens)
        if session_id is not None:
            if self.identity is SessionIdentity.BODY:
                fields["session_id"] = session_id
            elif self.identity is SessionIdentity.CACHE_KEY:
                fields["prompt_cache_key"] = session_id
        tail = msgspec.json.encode({"model": self.model, **fields, **self.more})
        return b'{"messages":[' + messages + b"]," + tail[1:]

    def headers_of(self, session_id: str | None) -> dict[str, str]:
        """Return the headers."""
        if session_id is not None and self.identity is SessionIdentity.HEADER:
            return {**self.headers, self.session_header: header_of(session_id)}
        return dict(self.headers)
