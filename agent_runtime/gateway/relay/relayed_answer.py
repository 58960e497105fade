"""The answer to a relayed call: what engines send, and what is written down of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Protocol, Self

from starlette.responses import JSONResponse, Response

from agent_runtime.engine_call import ReplyReader
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import TurnUsage
from agent_runtime.gateway.error_mapping import error_response, http_error
from agent_runtime.gateway.relay.kept_responses import Keeping, KeptResponses
from agent_runtime.gateway.relay.relay_attempts import RelayAttempts, no_placement
from agent_runtime.gateway.relay.relay_opening import OpenedCall, RelayOpening
from agent_runtime.gateway.turn_stream import StreamEnds
from agent_runtime.gateway.turn_telemetry import WatchedTurn
from agent_runtime.turns import TurnPlacement, TurnProgress
from scheduler.ids import ReplicaId


class RetryCounts(Protocol):
    """Is told of calls that engines failed."""

    def tried_again(self) -> None:
        """One was sent to another engine from the beginning."""
        ...

    def resumed(self) -> None:
        """Another engine went on with the half of a reply."""
        ...


class RelayedAnswer:
    """A ``LiveAnswer`` of engines.

    Args:
        opening: Makes turns of the call.
        opened: The call.
        retries: Told of attempts that failed.
        kept: Keeps responses, for calls whose answer may be kept; else None.
    """

    __slots__ = ("_attempts", "_books", "_first", "_opened")

    def __init__(
        self,
        opening: RelayOpening,
        opened: OpenedCall,
        retries: RetryCounts,
        kept: KeptResponses | None,
    ) -> None:
        self._opened = opened
        self._books = _Books(opening, opened, retries, kept)
        self._attempts = RelayAttempts(opening, opened, self._books)
        self._first = b""

    async def begin(self, watched: WatchedTurn, stack: AsyncExitStack) -> Self:
        """Have an engine answer; of a stream, return once it has begun.

        Raises:
            RequestError: The call can't be run.
            BackendError: No engine answers, or one with an error.
        """
        self._books.watched = watched
        await stack.enter_async_context(self._attempts)
        if self._opened.call.streams:
            self._first = await anext(self._attempts, b"")
        return self

    @property
    def placement(self) -> TurnPlacement:
        """What was decided about its latest turn."""
        placement = self._books.placement
        if placement is None:
            raise no_placement()
        return placement

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Return the events as they come."""
        keeping = self._books.keeping
        try:
            yield self._first
            async for data in self._attempts:
                if keeping is not None:  # nobody shall go on with what a restart would forget
                    await keeping.settled()
                yield data
        except BackendError as error:
            self._books.broke(error)
            raise

    async def whole(self) -> Response:
        """Return the engine's answer, byte by byte."""
        try:
            data = [chunk async for chunk in self._attempts]
            if self._books.keeping is not None:
                await self._books.keeping.settled()
        except BackendError as error:
            self._books.broke(error)
            raise
        return Response(b"".join(data), media_type="application/json")

    def ends(self, path: str) -> StreamEnds:
        """Return how it ends that does not end well."""
        api, attempts, keeping = self._opened.call.api, self._attempts, self._books.keeping

        def failure(error: RequestError | BackendError) -> bytes:
            if keeping is not None:
                keeping.failed(http_error(error).message)
            return api.broken(error, attempts.reader)

        def response(error: RequestError | BackendError) -> Response:
            failure(error)
            return error_response(error, path)

        if keeping is None:
            return StreamEnds(failure, response)
        return StreamEnds(
            failure,
            response,
            keeping.cancelled,
            lambda: keeping.cut_short_events(attempts.reader),
            lambda: JSONResponse(keeping.cut_short()),
        )


class _Books:
    """The ``AttemptListener`` of an answer: tells everybody who counts or keeps.

    It does not know the answer. Were there a cycle, request and reply would stay in memory until a
    garbage collection, of which there are few (``collect_garbage_rarely``).

    Attributes:
        watched: For whoever counts, once the answer has begun.
        placement: Of the latest turn.
        keeping: Keeps the answer, if it is to be kept.
    """

    __slots__ = (
        "_kept", "_opened", "_opening", "_retries", "_spoke", "keeping", "placement", "watched",
    )  # fmt: skip

    def __init__(
        self,
        opening: RelayOpening,
        opened: OpenedCall,
        retries: RetryCounts,
        kept: KeptResponses | None,
    ) -> None:
        self._opening, self._opened, self._retries, self._kept = opening, opened, retries, kept
        self._spoke = False
        self.watched: WatchedTurn | None = None
        self.placement: TurnPlacement | None = None
        self.keeping: Keeping | None = None
        if kept is not None and opened.call.fields.get("store") is not False:
            self.keeping = kept.keeping(opened.call, opened.session)

    def placed(self, placement: TurnPlacement) -> None:
        """Note where it runs."""
        self.placement = placement
        if self.watched is not None:
            self.watched.placed(placement)

    def progressed(self, step: TurnProgress, reader: ReplyReader, replica_id: ReplicaId) -> None:
        """Note what came."""
        watched = self.watched
        if watched is not None:
            if step.num_new_tokens and not self._spoke and self._opened.call.streams:
                self._spoke = True
                watched.first_token(self._opening.runner.now_s() - self._opened.arrived_s)
            if step.finished:
                facts = reader.facts()
                num_prompt = facts.num_prompt_tokens or 0
                num_cached = facts.num_cached_tokens or 0
                watched.answered(TurnUsage(num_prompt, facts.num_output_tokens, num_cached))
        if self.keeping is not None:
            self.keeping.progressed(reader, replica_id)

    def tries_again(self, *, resumes: bool) -> None:
        """Count another attempt."""
        if resumes:
            self._retries.resumed()
        else:
            self._retries.tried_again()

    def not_understood(self, replica_id: ReplicaId) -> None:
        """Note that an engine keeps no responses."""
        if self._kept is not None:
            self._kept.not_found(replica_id)

    def broke(self, error: BackendError) -> None:
        """Note that it did not come to its end."""
        if self.watched is not None:
            self.watched.broke(error)
