"""``--replay OUT.html``: a run to be watched again, of ``simulate`` and ``run``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from agent_runtime.rack_view.gauges import EngineGauges
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.rack_view.recorder import ViewRecorder
from agent_runtime.rack_view.recording_file import SUFFIXES, write_recording
from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore

METAVAR = "OUT.html"
HELP = (
    "write a self-contained page that plays the run again, or with OUT.jsonl its messages "
    "(docs/dashboard.md)"
)


def add_recording_option(group: argparse._ArgumentGroup) -> None:
    """Add ``--replay``, which sets ``recording``."""
    group.add_argument(
        "--replay", dest="recording", type=recording_target, metavar=METAVAR, help=HELP
    )


def recording_target(text: str) -> str:
    """Parse the name of a recording."""
    if Path(text).suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"expected OUT{' or OUT'.join(SUFFIXES)}, got {text!r}")
    return text


class RunRecording:
    """The recording of one run, or of the base band's of several.

    Args:
        target: The file; None for no recording.
        bands: Of the runs.
        policy: Who decides.
    """

    def __init__(self, target: str | None, bands: Sequence[Band], policy: str) -> None:
        self._target = target
        self._band = Band.BASE if Band.BASE in bands else bands[0]
        self._policy = policy
        self._recorder: ViewRecorder | None = None

    def begin(self, band: Band, deployment: Deployment) -> ViewRecorder | None:
        """Return what records the run of a band, None if it is not to be recorded."""
        if self._target is None or band is not self._band:
            return None
        layout = emulated_layout(deployment, band=band, policy=self._policy, source="recording")
        self._recorder = ViewRecorder(layout)
        return self._recorder

    def write(self) -> Path | None:
        """Write it; return where it is, None if nothing was recorded."""
        if self._target is None or self._recorder is None:
            return None
        write_recording(Path(self._target), self._recorder.messages())
        return Path(self._target).resolve()


def watch_engines(recorder: ViewRecorder | None) -> Callable[[Sequence[EngineCore]], None] | None:
    """Return what tells a recorder of the engines that it reads."""
    if recorder is None:
        return None

    def watch(engines: Sequence[EngineCore]) -> None:
        recorder.gauges = EngineGauges(engines)

    return watch


class ReplayOption(argparse.Action):
    """``--replay`` of ``simulate``, which may be given twice: rules, and a file to be written."""

    RULES = ("agentx",)

    @override
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Set ``replay`` or ``recording``."""
        text = str(values)
        if text in self.RULES:
            namespace.replay = text
        elif Path(text).suffix in SUFFIXES:
            namespace.recording = text
        else:
            expected = f"{', '.join(self.RULES)} or a file to write, OUT.html or OUT.jsonl"
            raise argparse.ArgumentError(self, f"expected {expected}, not {text!r}")
