"""The SDK for scripts without an event loop: the same sessions, one call after the other.

An event loop runs in a thread of its own, so the emulated rack's time goes on between calls.
Virtual time needs async programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydantic import BaseModel

from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.budget import Budget
from agent_runtime.sdk.conversation import Message
from agent_runtime.sdk.events import Event, RunResult, Usage
from agent_runtime.sdk.runtime import Runtime
from agent_runtime.sdk.session import Session

Output = TypeVar("Output", bound=BaseModel)


class BlockingSession:
    """A ``Session``; its methods return when they are done, and raise what it raises."""

    def __init__(self, portal: BlockingPortal, session: Session) -> None:
        self._portal = portal
        self._session = session

    @property
    def session_id(self) -> str:
        """The server keeps the conversation's KV under it."""
        return self._session.session_id

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self._session.messages

    @property
    def usage(self) -> Usage:
        """Of all model calls so far."""
        return self._session.usage

    @overload
    def run(self, text: str) -> RunResult[str]: ...

    @overload
    def run(
        self, text: str, *, output: type[Output], second_tries: int = 0
    ) -> RunResult[Output]: ...

    def run(
        self, text: str, *, output: type[BaseModel] | None = None, second_tries: int = 0
    ) -> RunResult[Any]:
        """Tell the agent something and let it work until it answers; as ``Session.run``."""
        if output is None:
            return self._portal.call(self._session.run, text)
        run = partial(self._session.run, text, output=output, second_tries=second_tries)
        return self._portal.call(run)

    def stream(self, text: str) -> Iterator[Event]:
        """Run, and yield what happens as it does; as ``Session.stream``."""
        events = self._session.stream(text)

        async def following() -> Event | None:
            return await anext(events, None)

        try:
            while (event := self._portal.call(following)) is not None:
                yield event
        finally:
            self._portal.call(events.aclose)

    def fork_map(
        self,
        texts: Sequence[str],
        *,
        join: Callable[[list[RunResult[str]]], Any] | None = None,
        at_once: int | None = None,
    ) -> Any:  # noqa: ANN401 - what ``join`` returns
        """Run a fork for each text, side by side; as ``Session.fork_map``."""
        results = self._portal.call(partial(self._session.fork_map, texts, at_once=at_once))
        return results if join is None else join(results)

    @contextmanager
    def fork(self, **terms: Any) -> Iterator[BlockingSession]:  # noqa: ANN401 - as Session.fork's
        """Open another session whose conversation begins as this one's; as ``Session.fork``."""
        with _entered(self._portal, partial(self._session.fork, **terms)) as session:
            yield BlockingSession(self._portal, session)

    @contextmanager
    def child(self, agent: Agent, **terms: Any) -> Iterator[BlockingSession]:  # noqa: ANN401
        """Open a session of another agent that this one waits for; as ``Session.child``."""
        with _entered(self._portal, partial(self._session.child, agent, **terms)) as session:
            yield BlockingSession(self._portal, session)

    def mark(self) -> int:
        """Return where the conversation is, for ``rewind``."""
        return self._session.mark()

    def rewind(self, mark: int) -> None:
        """Forget what was said since a mark."""
        self._session.rewind(mark)

    def adopt(self, result: RunResult[Any]) -> None:
        """Go on as the session that a result is of."""
        self._session.adopt(result)

    def compact(self, *, keep_last: int = 0) -> str:
        """Have the model summarise the conversation, and go on with that; returns the summary."""
        return self._portal.call(partial(self._session.compact, keep_last=keep_last))


class BlockingRuntime:
    """A ``Runtime``; ``connect`` and ``emulated`` take what its do.

    ```python
    with BlockingRuntime.connect("http://...") as runtime, runtime.session(agent) as session:
        print(session.run("...").text)
    ```
    """

    def __init__(self, portal: BlockingPortal, runtime: Runtime) -> None:
        self._portal = portal
        self._runtime = runtime

    @classmethod
    @contextmanager
    def connect(cls, *args: Any, **kwargs: Any) -> Iterator[BlockingRuntime]:  # noqa: ANN401
        """Open a connection to a server; as ``Runtime.connect``."""
        with cls._opened(partial(Runtime.connect, *args, **kwargs)) as runtime:
            yield runtime

    @classmethod
    @contextmanager
    def emulated(cls, *args: Any, **kwargs: Any) -> Iterator[BlockingRuntime]:  # noqa: ANN401
        """Open an emulated rack in this process; as ``Runtime.emulated``."""
        with cls._opened(partial(Runtime.emulated, *args, **kwargs)) as runtime:
            yield runtime

    @contextmanager
    def session(
        self,
        agent: Agent,
        *,
        session_id: str | None = None,
        priority: int | None = None,
        deadline_s: float | None = None,
        budget: Budget | None = None,
    ) -> Iterator[BlockingSession]:
        """Open a conversation; as ``Runtime.session``."""
        opened = partial(
            self._runtime.session,
            agent,
            session_id=session_id,
            priority=priority,
            deadline_s=deadline_s,
            budget=budget,
        )
        with _entered(self._portal, opened) as session:
            yield BlockingSession(self._portal, session)

    @classmethod
    @contextmanager
    def _opened(
        cls, opened: Callable[[], AbstractAsyncContextManager[Runtime]]
    ) -> Iterator[BlockingRuntime]:
        with start_blocking_portal() as portal, _entered(portal, opened) as runtime:
            yield cls(portal, runtime)


Entered = TypeVar("Entered")


@contextmanager
def _entered(
    portal: BlockingPortal, opened: Callable[[], AbstractAsyncContextManager[Entered]]
) -> Iterator[Entered]:
    """Enter a context in the portal's loop; it is made there, since anyio wants a running loop."""
    with portal.wrap_async_context_manager(portal.call(opened)) as entered:
        yield entered
