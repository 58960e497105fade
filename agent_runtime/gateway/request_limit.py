"""How many requests the endpoint answers at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager

from agent_runtime.errors import TooManyRequestsError

RETRY_AFTER_S = 1.0


class RequestLimit:
    """Counts requests under way.

    Args:
        max_under_way: Beyond so many they are refused.
    """

    def __init__(self, max_under_way: int) -> None:
        self._max_under_way = max_under_way
        self.num_under_way = 0

    def check(self) -> None:
        """Raise if there is no room for another one.

        Raises:
            TooManyRequestsError: There are as many as may be.
        """
        if self.num_under_way >= self._max_under_way:
            raise TooManyRequestsError(
                f"{self.num_under_way} requests are under way, which is the limit; try again in "
                f"{RETRY_AFTER_S:g} s",
                retry_after_s=RETRY_AFTER_S,
            )

    def under_way(self) -> AbstractContextManager[None]:
        """Count one while the context lasts.

        Raises:
            TooManyRequestsError: On entry; there are as many as may be.
        """
        return self

    def __enter__(self) -> None:
        self.check()
        self.num_under_way += 1

    def __exit__(self, *_: object) -> None:
        self.num_under_way -= 1
