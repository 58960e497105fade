"""What must be known of a server before it is loaded: its model, its form, how it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from agent_runtime.backends.vllm_servers.engine_http import EngineHttp, EngineUnreachableError
from agent_runtime.errors import BackendError, ConfigError
from agent_runtime.load_test.call_errors import CallFailedError
from agent_runtime.load_test.model_caller import ModelCaller
from agent_runtime.load_test.request_form import ReplyLength, RequestForm, RequestMaker, forms
from agent_runtime.load_test.tokenisation import (
    ASSUMED,
    CountSource,
    Messages,
    Tokenisation,
    calibration_prompts,
)
from agent_runtime.load_test.turn_record import TurnRecord
from agent_runtime.undecodable import UNDECODABLE

PROBE_TOKENS = 4
OK = 200
FORM_REFUSED = {"http_400", "http_422"}
"""Answers to a request with a field that the server does not know; others are final."""


class _ModelCard(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_ModelCard]


class _Tokenized(msgspec.Struct):
    count: int


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server that answered.

    Attributes:
        requests: Makes requests that it takes.
        tokenisation: How it counts.
        notes: What a reader should know of both.
    """

    requests: RequestMaker
    tokenisation: Tokenisation
    notes: tuple[str, ...]


async def served_model(http: EngineHttp, base_url: str) -> str:
    """Return the name of the only model that a server has.

    Raises:
        ConfigError: It has several, or none.
        BackendError: It can't be asked.
    """
    url = f"{base_url}/v1/models"
    try:
        status, body = await http.get(url)
        models = msgspec.json.decode(body, type=_Models) if status == OK else None
    except (EngineUnreachableError, *UNDECODABLE) as error:
        raise BackendError(f"can't ask for the server's models: {error}") from error
    if models is None:
        shown = body[:200].decode("utf-8", "replace")
        raise BackendError(f"{url} answered {status}: {shown}; name the model with --model")
    names = [card.id for card in models.data]
    if len(names) != 1:
        raise ConfigError(
            f"the server has {', '.join(names) or 'no models'}: name one with --model"
        )
    return names[0]


@dataclass(frozen=True, slots=True)
class ServerProbe:
    """Asks a server a few small things, one after the other.

    Attributes:
        caller: Of the server.
        base_url: Of it, without ``/v1``.
        requests: What requests shall be like, but for their form.
    """

    caller: ModelCaller
    base_url: str
    requests: RequestMaker

    async def ask(self, wanted: ReplyLength, note: Callable[[str], None]) -> KnownServer:
        """Return what is known then.

        Args:
            wanted: What shall decide how long replies are.
            note: Told what is tried.

        Raises:
            BackendError: The server takes no request, or can't be reached.
        """
        notes: list[str] = []
        note("finding the form of requests")
        requests = replace(self.requests, form=await self._form(wanted))
        if wanted is ReplyLength.AUTO and not requests.form.exact:
            notes.append(
                "the server refuses ignore_eos and min_tokens, so replies end when the model ends "
                "them, and may be shorter than scripted"
            )
        note("counting the tokens of known words")
        tokenisation = await self._tokenisation(requests)
        if tokenisation.source is CountSource.ASSUMED:
            notes.append(
                "the server tells no token counts, neither as usage nor by /tokenize: prompts are "
                "taken to have a token a word, and output tokens are counted as chunks"
            )
        return KnownServer(requests, tokenisation, tuple(notes))

    async def _form(self, wanted: ReplyLength) -> RequestForm:
        """Return the first form that the server takes."""
        [few, *_] = calibration_prompts()
        refusal = ""
        for form in forms(wanted):
            try:
                await self._asked(replace(self.requests, form=form), few)
            except CallFailedError as error:
                if error.kind not in FORM_REFUSED:
                    raise BackendError(
                        f"{self.caller.url}: the first request failed, so nothing was measured: "
                        f"{error}"
                    ) from error
                refusal = str(error)
            else:
                return form
        raise BackendError(
            f"{self.caller.url} refuses every form of request that was tried (see --reply-length): "
            f"{refusal}"
        )

    async def _tokenisation(self, requests: RequestMaker) -> Tokenisation:
        for source, count in (
            (CountSource.TOKENIZE, self._tokenized),
            (CountSource.USAGE, self._prompt_tokens),
        ):
            counts = []
            for messages in calibration_prompts():
                counted = await count(requests, messages)
                if counted is None:
                    break
                counts.append(counted)
            else:
                return Tokenisation.of_counts(counts, source)
        return ASSUMED

    async def _tokenized(self, requests: RequestMaker, messages: Messages) -> int | None:
        body = {"model": requests.model, "messages": messages, "add_generation_prompt": True}
        try:
            reply = await self.caller.http.send(
                "POST",
                f"{self.base_url}/tokenize",
                msgspec.json.encode(body),
                requests.headers_of(None),
            )
            try:
                text = b""
                while data := await reply.next_bytes():
                    text += data
                if reply.status != OK:
                    return None
                return msgspec.json.decode(text, type=_Tokenized).count
            finally:
                reply.close()
        except (EngineUnreachableError, *UNDECODABLE):
            return None  # usage will tell

    async def _prompt_tokens(self, requests: RequestMaker, messages: Messages) -> int | None:
        try:
            record = await self._asked(requests, messages)
        except CallFailedError as error:
            raise BackendError(
                f"{self.caller.url}: a prompt to count by failed: {error}"
            ) from error
        return record.prompt_tokens

    async def _asked(self, requests: RequestMaker, messages: Messages) -> TurnRecord:
        now_s = self.caller.now_s()
        record = TurnRecord("probe", 0, now_s, 0, PROBE_TOKENS)
        said = b",".join(msgspec.json.encode(message) for message in messages)
        body = requests.body(None, said, PROBE_TOKENS)
        await self.caller.call(record, body, requests.headers_of(None))
        return record
