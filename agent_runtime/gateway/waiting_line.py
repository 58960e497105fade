"""When more is asked for than can be run: who is turned away, and when to come back.

*Newcomers* are sessions whose first turn it would be. Those that the scheduler holds stand in a
line; by Little's law, one more waits for as long as the line takes to let through as many as wait
already. Where that is too long they are refused. Sessions under way are let in, since an agent that
is turned away throws away all it has done, and its KV with it; there are only as many of them as
were let in before.

Who is refused has a place from then on: places lie as far apart as newcomers get to run, each
refusal tells the time of its own, and a session that comes back then is let in, before any that
comes anew.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from agent_runtime.errors import TooManyRequestsError
from scheduler.ids import SessionId

NUM_REMEMBERED = 8
"""Newcomers whose passing tells the pace: more are slower to tell that it has changed."""

FEWEST = 3
"""By fewer it can't be told."""

LONGEST_S = 600.0
"""Nobody is told to come back later than that; who would have to has no place, and tries again."""

KEPT_S = 30.0
"""For how long a place is kept for a session that does not come when told."""


class Pace:
    """How many pass a second while somebody waits, by the last few who did.

    Invariants: ``_busy_s`` are the seconds so far in which somebody waited, ``_passed_s`` its
        readings when the last ones passed.
    """

    __slots__ = ("_busy_s", "_passed_s")

    def __init__(self) -> None:
        self._busy_s = 0.0
        self._passed_s: deque[float] = deque(maxlen=NUM_REMEMBERED)

    def pass_time(self, seconds: float) -> None:
        """So much time has passed in which somebody waited."""
        self._busy_s += seconds

    def one_passed(self) -> None:
        """One passed."""
        self._passed_s.append(self._busy_s)

    @property
    def per_s(self) -> float:
        """Return the pace; 0 while it can't be told."""
        passed_s = self._passed_s
        if len(passed_s) < FEWEST or self._busy_s <= passed_s[0]:
            return 0.0
        return (len(passed_s) - 1) / (self._busy_s - passed_s[0])


class WaitingLine:
    """The newcomers that wait to run. Sans-IO.

    Args:
        max_wait_s: Newcomers who would wait for longer are refused.

    Attributes:
        num_waiting: In the line.
        num_refused: Turned away so far, those who came back too early included.

    Invariant: ``_places`` has the sessions that were refused and may come back, by when.
    """

    __slots__ = (
        "_as_of_s", "_max_wait_s", "_next_place_s", "_pace", "_places", "num_refused",
        "num_waiting",
    )  # fmt: skip

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._pace = Pace()
        self._places: OrderedDict[SessionId, float] = OrderedDict()
        self._as_of_s = self._next_place_s = -math.inf
        self.num_waiting = self.num_refused = 0

    def joined(self, now_s: float) -> None:
        """One waits."""
        self._pass_time(now_s)
        self.num_waiting += 1

    def left(self, now_s: float, waited_s: float | None) -> None:
        """One waits no more.

        Args:
            now_s: Now.
            waited_s: How long it was held before it ran; None for one that was withdrawn.
        """
        self._pass_time(now_s)
        self.num_waiting -= 1
        if waited_s is not None and (waited_s > 0.0 or self.num_waiting):
            self._pace.one_passed()

    def expected_wait_s(self, now_s: float) -> float:
        """Return how long a newcomer will wait; 0 while that can't be told."""
        self._pass_time(now_s)
        pace = self._pace.per_s
        return self.num_waiting / pace if pace else 0.0

    def check(self, session_id: SessionId, now_s: float) -> None:
        """Raise if a session that has had no turn should come later.

        Raises:
            TooManyRequestsError: With the time to come back at.
        """
        wait_s = self.expected_wait_s(now_s)
        self._drop_places(now_s)
        place_s = self._places.get(session_id)
        if place_s is None:
            # Who has a place goes first, unless there is much room.
            limit_s = self._max_wait_s / 2 if self._places else self._max_wait_s
            if wait_s <= limit_s:
                return
            place_s = self._new_place(session_id, now_s, wait_s)
        elif now_s >= place_s:
            del self._places[session_id]
            if wait_s <= 2 * self._max_wait_s:
                return
            place_s = self._new_place(session_id, now_s, wait_s)
        self.num_refused += 1
        retry_after_s = min(LONGEST_S, place_s - now_s)
        raise TooManyRequestsError(
            f"{self.num_waiting} new sessions wait already, for {wait_s:.0f} s; come back in "
            f"{math.ceil(retry_after_s)} s",
            retry_after_s=retry_after_s,
        )

    def _new_place(self, session_id: SessionId, now_s: float, wait_s: float) -> float:
        """Return the time of a place behind all others."""
        pace = self._pace.per_s
        first_s = now_s + max(0.0, wait_s - self._max_wait_s)
        place_s = max(self._next_place_s, first_s) + 1.0 / pace
        if place_s > now_s + LONGEST_S:
            return now_s + LONGEST_S
        self._next_place_s = self._places[session_id] = place_s
        return place_s

    def _drop_places(self, now_s: float) -> None:
        """Drop those who did not come; they were told in the order in which they stand."""
        while self._places:
            session_id, place_s = next(iter(self._places.items()))
            if now_s <= place_s + KEPT_S:
                return
            del self._places[session_id]

    def _pass_time(self, now_s: float) -> None:
        passed_s = now_s - self._as_of_s
        if passed_s <= 0.0:
            return
        if self.num_waiting and passed_s < math.inf:
            self._pace.pass_time(passed_s)
        self._as_of_s = now_s
