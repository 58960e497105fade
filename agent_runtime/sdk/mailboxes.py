"""Letters between agents: bounded mailboxes by name, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from typing_extensions import override

DEFAULT_CAPACITY = 64


class Letter:
    """What one agent tells another.

    Attributes:
        sender: Whose session sent it.
        content: Anything; it is not copied.
    """

    __slots__ = ("_answer", "_answered", "content", "sender")

    def __init__(self, sender: str, content: Any) -> None:  # noqa: ANN401 - the sender's own
        self.sender = sender
        self.content = content
        self._answered = anyio.Event()
        self._answer: Any = None

    def answer(self, content: Any) -> None:  # noqa: ANN401 - the receiver's own
        """Answer whoever gathers answers; the first answer counts."""
        if not self._answered.is_set():
            self._answer = content
            self._answered.set()

    async def answered(self) -> Any:  # noqa: ANN401 - the receiver's own
        """Return the answer, once it is there."""
        await self._answered.wait()
        return self._answer

    @override
    def __repr__(self) -> str:
        return f"Letter(sender={self.sender!r}, content={self.content!r})"


class Mailbox:
    """Letters in the order they came; several readers share them, each letter goes to one.

    Args:
        capacity: Letters; whoever sends to a full one waits.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        streams = anyio.create_memory_object_stream[Letter](capacity)
        self._send: MemoryObjectSendStream[Letter] = streams[0]
        self._receive: MemoryObjectReceiveStream[Letter] = streams[1]

    def __len__(self) -> int:
        return self._receive.statistics().current_buffer_used

    async def put(self, letter: Letter) -> None:
        """Deliver a letter, once there is room."""
        await self._send.send(letter)

    async def take(self) -> Letter:
        """Return the next letter, once there is one.

        Raises:
            EndOfStream: anyio's; none will come any more.
        """
        try:
            return await self._receive.receive()
        except anyio.ClosedResourceError as error:
            raise anyio.EndOfStream from error

    def close(self) -> None:
        """Deliver nothing any more; readers that wait get ``anyio.EndOfStream``, loops end."""
        self._send.close()  # first: it wakes who waits
        self._receive.close()

    async def __aiter__(self) -> AsyncIterator[Letter]:
        while True:
            try:
                letter = await self.take()
            except anyio.EndOfStream:
                return
            yield letter


class PostOffice:
    """All mailboxes of a runtime; one comes into being when somebody names it.

    Leaving its context closes them.

    Args:
        capacity: Of each.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._mailboxes: dict[str, Mailbox] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.close()

    def mailbox(self, name: str) -> Mailbox:
        """Return the mailbox of that name."""
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = self._mailboxes[name] = Mailbox(self._capacity)
        return mailbox

    async def send(self, sender: str, to: str, content: Any) -> Letter:  # noqa: ANN401
        """Deliver to one; waits while its mailbox is full."""
        letter = Letter(sender, content)
        await self.mailbox(to).put(letter)
        return letter

    async def broadcast(
        self,
        sender: str,
        to: Sequence[str],
        content: Any,  # noqa: ANN401
    ) -> list[Letter]:
        """Deliver to several side by side; returns when all have it."""
        letters = [Letter(sender, content) for _ in to]
        async with anyio.create_task_group() as tasks:
            for name, letter in zip(to, letters, strict=True):
                tasks.start_soon(self.mailbox(name).put, letter)
        return letters

    async def gather(
        self,
        sender: str,
        to: Sequence[str],
        content: Any,  # noqa: ANN401
        *,
        timeout_s: float | None = None,
    ) -> list[Any]:
        """Deliver to several and return their answers, in the order of the names.

        Raises:
            TimeoutError: They are not all there in time.
        """
        with anyio.fail_after(timeout_s):
            letters = await self.broadcast(sender, to, content)
            return [await letter.answered() for letter in letters]
