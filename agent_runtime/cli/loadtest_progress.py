"""How far a load test is, live."""

from __future__ import annotations

import math

import anyio
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent_runtime.load_test.load_plan import LoadPlan
from agent_runtime.load_test.load_run import LoadRun
from agent_runtime.report import quantities

EVERY_S = 0.5


class LoadProgress:
    """A line that says what goes on; nothing where nobody looks.

    Args:
        plan: What goes on.
        console: Where.
    """

    def __init__(self, plan: LoadPlan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._note = "starting"
        self._before = (0.0, 0)

    def note(self, text: str) -> None:
        """Take in what is done before the load begins."""
        self._note = text

    async def show(self, run: LoadRun) -> None:
        """Show it until cancelled."""
        if not self._console.is_terminal:
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Text(self._line(run)), refresh=True)
                await anyio.sleep(EVERY_S)

    def _line(self, run: LoadRun) -> str:
        if math.isnan(run.began_s):
            return self._note
        now_s, log = run.now_s(), run.log
        phases = self._plan.phases
        until = (
            "" if phases.duration_s is None else f" of {quantities.short_seconds(phases.stop_s)}"
        )
        before_s, before_tokens = self._before
        self._before = (now_s, log.output_tokens)
        rate = (log.output_tokens - before_tokens) / max(EVERY_S, now_s - before_s)
        recent = list(log.recent_ttft_s)
        ttft = quantities.seconds(float(np.median(recent)) if recent else None)
        errors = f", {log.num_errors:,} errors" if log.num_errors else ""
        return (
            f"{phases.name_at(now_s)} {quantities.seconds(now_s)}{until}: {log.num_live:,} "
            f"sessions, {run.watch.num_calls:,} streams, {log.num_answered:,} turns{errors}, "
            f"TTFT p50 {ttft}, {quantities.count(rate)} tokens/s"
        )
