"""Which turns' stories are kept once they are over: the latest of a server, some of a recording."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping

from agent_runtime.measurement.decision_lines import receipt_entry
from agent_runtime.measurement.turn_stories import TurnStory
from agent_runtime.rack_view.messages import Story
from scheduler.ids import TurnId

MAX_LATEST_STORIES = 5_000
MAX_LONGEST, MAX_SAMPLED = 300, 1_700
FIRST_STRIDE = 10


class LatestStories:
    """Those of the last turns that are over.

    Args:
        most: So many.
    """

    def __init__(self, most: int = MAX_LATEST_STORIES) -> None:
        self._most = most
        self._stories: OrderedDict[TurnId, TurnStory] = OrderedDict()

    def keep(self, story: TurnStory) -> None:
        """Keep one, and forget the oldest if they are too many."""
        self._stories[story.turn] = story
        self._stories.move_to_end(story.turn)
        if len(self._stories) > self._most:
            self._stories.popitem(last=False)

    def find(self, turn_id: TurnId) -> TurnStory | None:
        """Return one, None if it is not kept."""
        return self._stories.get(turn_id)


class ChosenStories:
    """Those of the turns that waited longest for their first token, and of every so-manieth.

    Invariant: ``_longest`` is a heap, its first the shortest; ``_sampled`` has every ``_stride``-th
        turn of those that are over.
    """

    def __init__(self) -> None:
        self._longest: list[tuple[float, int, TurnStory]] = []
        self._sampled: list[TurnStory] = []
        self._stride = FIRST_STRIDE
        self._num_over = 0

    def keep(self, story: TurnStory) -> None:
        """Keep one if it is worth it."""
        if self._num_over % self._stride == 0:
            self._sampled.append(story)
            if len(self._sampled) > MAX_SAMPLED:
                self._sampled = self._sampled[::2]
                self._stride *= 2
        self._num_over += 1
        entry = (story.ttft_s or 0.0, -self._num_over, story)
        if len(self._longest) < MAX_LONGEST:
            heapq.heappush(self._longest, entry)
        else:
            heapq.heappushpop(self._longest, entry)

    def __iter__(self) -> Iterator[TurnStory]:
        """Yield what was kept, in the order in which the turns arrived."""
        kept = {story.turn: story for story in self._sampled}
        kept.update((story.turn, story) for _, _, story in self._longest)
        yield from sorted(kept.values(), key=lambda story: (story.arrived_s, story.turn))


def told(story: TurnStory) -> Story:
    """Return a story as the view is told it."""
    return Story(
        turn=story.turn,
        session=story.session,
        prompt_tokens=story.prompt_tokens,
        arrived_s=story.arrived_s,
        dispatched_s=story.dispatched_s,
        prefilled_s=story.prefilled_s,
        ended_s=story.ended_s,
        replica=story.replica,
        cached_tokens=story.cached_tokens,
        receipts=[(at_s, _rounded(receipt_entry(receipt))) for at_s, receipt in story.receipts],
    )


def _rounded(entry: dict[str, object]) -> Mapping[str, object]:
    """Return a receipt with seconds to the microsecond, which halves what it takes."""
    options = entry["options"]
    assert isinstance(options, list)  # noqa: S101 - as ``receipt_entry`` makes it
    rounded = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in one.items()}
        for one in options
    ]
    return {**entry, "options": rounded}
