"""A run of unknown length as a bounded number of frames, to be watched again."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.rack_view.gauges import ReplicaGauges
from agent_runtime.rack_view.kept_stories import ChosenStories, told
from agent_runtime.rack_view.messages import (
    Layout,
    Message,
    SeriesPoint,
    Stories,
)
from agent_runtime.rack_view.rack_picture import SERIES_WINDOW_S, RackPicture
from agent_runtime.rack_view.recorded_sample import RecordedSample
from agent_runtime.rack_view.series_window import series_point
from scheduler.decision import Decision

MAX_FRAMES, MAX_ROWS = 1_000, 250_000
LEAST_FRAMES = 60
"""So many are kept however many sessions change in each."""

FIRST_STEP_S = 1.0


class ViewRecorder:
    """Takes in a run's decisions, and what its replicas report, as it goes.

    Frames are at even steps; when there are too many, or too many rows in them, every other one is
    merged into its successor and the step doubles.

    Args:
        layout: Of what runs.
        gauges: Of its replicas; may be set later, before the first decision.
        max_frames: How many there are at the most.
    """

    def __init__(
        self,
        layout: Layout,
        gauges: ReplicaGauges | None = None,
        *,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.gauges = gauges
        self._layout = layout
        self._max_frames = max_frames
        self._picture = RackPicture()
        self._stories = ChosenStories()
        self._samples: list[RecordedSample] = []
        self._num_rows = 0
        self._read: int | None = None  # the version that the latest sample has
        self._step_s = FIRST_STEP_S
        self._next_s = 0.0
        self._now_s = 0.0

    def take(self, decision: Decision) -> None:
        """Take in a decision."""
        over = self._picture.take(decision)
        if over is not None:
            self._stories.keep(over)
        self._now_s = decision.now_s
        if self._now_s >= self._next_s:
            self._sample()

    def messages(self) -> list[Message]:
        """End the recording; return all of it."""
        if not self._samples or self._picture.version != self._read:
            self._sample()
        points = _series(self._samples)
        frames = [one.frame(at) for one, at in zip(self._samples, points, strict=True)]
        stories = Stories({story.turn: told(story) for story in self._stories})
        return [self._layout, *frames, stories]

    def _sample(self) -> None:
        replicas = [] if self.gauges is None else self.gauges.read()
        frame = self._picture.frame(self._read, self._now_s, replicas)
        values = self._picture.series_since(self._read or 0)
        self._samples.append(RecordedSample(frame, values))
        self._num_rows += len(frame.sessions)
        self._read = self._picture.version
        if len(self._samples) >= self._max_frames or (
            self._num_rows > MAX_ROWS and len(self._samples) > 2 * LEAST_FRAMES
        ):
            self._thin()
        self._next_s = (self._now_s // self._step_s + 1) * self._step_s

    def _thin(self) -> None:
        """Merge every other sample into its successor; the first stays, as the beginning."""
        first, rest = self._samples[0], self._samples[1:]
        for earlier, later in zip(rest[::2], rest[1::2], strict=False):
            later.follow(earlier)
        last = rest[-1:] if len(rest) % 2 else []
        self._samples = [first, *rest[1::2], *last]
        self._num_rows = sum(sample.num_rows for sample in self._samples)
        self._step_s *= 2


def _series(samples: Sequence[RecordedSample]) -> list[list[SeriesPoint | None]]:
    """Return the percentiles of every sample, over ``SERIES_WINDOW_S`` at least."""
    points = []
    for number, sample in enumerate(samples):
        window = [sample]
        while number and samples[number - 1].at_s > sample.at_s - SERIES_WINDOW_S:
            number -= 1  # noqa: PLW2901 - goes back from where it is
            window.append(samples[number])
        columns = zip(*(each.values for each in window), strict=True)
        points.append([series_point([v for part in column for v in part]) for column in columns])
    return points
