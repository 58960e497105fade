"""A request for a real engine, read as far as the gateway needs to know; the rest passes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from agent_runtime.engine_call import EngineCall, ReplyFacts, ReplyReader
from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.client_hints import VLLM_PRIORITY, ClientHints, client_hints
from agent_runtime.gateway.relay.relayed_api import AskedOfEngine, Fields, RelayedApi, RelayedPrompt
from agent_runtime.gateway.response_store import StoredResponse
from agent_runtime.gateway.session_keys import Caller, SessionKeys, session_keys
from agent_runtime.gateway.turn_terms import gap_after
from agent_runtime.gateway.wire import ServerExtras, invalid_request
from scheduler.events import NO_TENANT, GapHint
from scheduler.ids import ReplicaId

EXTRAS = ("session_id", "priority", "cache_salt", "panjiu")
NO_EXTRAS = ServerExtras()
NOT_OF_TENANTS = {
    "kv_transfer_params": "it names KV by where it lies, whoever's it is; leave it out",
    "request_id": "an engine knows answers by it, whoever's they are; leave it out",
}
"""vLLM's members that lead to what is another caller's."""


class RelayedCall(msgspec.Struct, frozen=True):
    """A request as it came.

    Attributes:
        api: It came in.
        body: As it was sent.
        fields: Its members, as the API reads them.
        headers: To pass on.
        keys: Whose turn it is.
        hints: What the caller knows of its session.
        only: The engine that alone understands it, or None.
        standalone: Its fields so that every engine does; None where that can't be.
        base: The response whose conversation ``standalone`` begins with.
    """

    api: RelayedApi
    body: bytes
    fields: Fields
    headers: Mapping[str, str]
    keys: SessionKeys
    hints: ClientHints
    only: ReplicaId | None = None
    standalone: Fields | None = None
    base: StoredResponse | None = None

    @property
    def model(self) -> str | None:
        """The model asked for."""
        model = self.fields.get("model")
        return model if isinstance(model, str) else None

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return bool(self.fields.get("stream"))

    @property
    def output_cap(self) -> int | None:
        """The most tokens the caller wants, if it said."""
        return self.api.output_cap(self.fields)

    def prompt(self) -> RelayedPrompt:
        """Return what the model sees."""
        return self.api.prompt(self.fields if self.standalone is None else self.standalone)

    def elsewhere(self) -> RelayedCall | None:
        """Return a call to the same effect that every engine understands; None if there is none."""
        if self.standalone is None:
            return None
        body = json.dumps(self.standalone).encode()
        return replace(self, body=body, fields=self.standalone, only=None, standalone=None)

    def engine_call(self) -> EngineCall:
        """Return it for a first engine."""
        return self._call(self.api.asked(self.fields, self.body))

    def continuation(self, reader: ReplyReader) -> EngineCall | None:
        """Return a call that goes on where a reply broke off, or None if that can't be.

        Args:
            reader: Of what was passed on to the client.
        """
        asked = self.api.continued(self.fields, reader)
        return None if asked is None else self._call(asked)

    def gap_after(self, facts: ReplyFacts) -> GapHint:
        """Return what the session does once a reply is complete."""
        offers_tools = bool(self.fields.get("tools"))
        return gap_after(self.hints, facts.tool_names, offers_tools=offers_tools)

    def _call(self, asked: AskedOfEngine) -> EngineCall:
        return EngineCall(
            self.api.path,
            asked.body,
            asked.reader,
            self.headers,
            self.gap_after,
            has_priority="priority" in self.fields or VLLM_PRIORITY in self.headers,
            takes_members=self.api.takes_members,
        )


def read_call(
    api: RelayedApi,
    body: bytes,
    caller: Caller,
    headers: Mapping[str, str],
    *,
    fields: Fields | None = None,
    continued: str | None = None,
) -> RelayedCall:
    """Read a request.

    Args:
        api: It came in.
        body: Of it.
        caller: Who sent it.
        headers: To pass on.
        fields: The body, where it is read already.
        continued: The session of the response that it goes on with.

    Raises:
        InvalidRequestError: Not a JSON object, or a member that is for the gateway and is not what
            it must be; names it.
    """
    if fields is None:
        fields = api.read(body)
    if caller.tenant_id != NO_TENANT:
        _check_of_tenant(fields)
    extras = _extras(fields)
    keys = session_keys(
        caller,
        session_id=extras.session_id,
        continued=continued,
        scope=api.scope(fields),
        cache_salt=extras.cache_salt,
    )
    hints = client_hints(
        caller.headers, extras.panjiu, priority=extras.priority, lease_s=api.lease_s(fields)
    )
    return RelayedCall(api, body, fields, headers, keys, hints)


def _check_of_tenant(fields: Fields) -> None:
    more = fields.get("vllm_xargs")
    for name, why in NOT_OF_TENANTS.items():
        if fields.get(name) is not None or (isinstance(more, dict) and name in more):
            raise InvalidRequestError(f"{name}: not taken from tenants: {why}", param=name)


def _extras(fields: Fields) -> ServerExtras:
    given = {name: fields[name] for name in EXTRAS if name in fields}
    if not given:
        return NO_EXTRAS
    try:
        return ServerExtras.model_validate(given)
    except ValidationError as error:
        raise invalid_request(error) from error
