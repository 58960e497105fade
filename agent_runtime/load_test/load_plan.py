"""What a load test does: whom it loads, with what, how, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agent_runtime.errors import ConfigError
from agent_runtime.load_test.arrivals import ArrivalKind, Arrivals
from agent_runtime.load_test.phases import Phases
from agent_runtime.load_test.request_form import ReplyLength, SessionIdentity
from agent_runtime.load_test.session_player import AfterError, History
from agent_runtime.workload.session_script import Workload

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a turn must keep to be good; None for what does not matter.

    Attributes:
        ttft_s: At most.
        tpot_s: At most, of turns with two tokens or more.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    """How the server is spoken to.

    Attributes:
        reply_length: What decides how long replies are.
        history: What stands for a reply in the next prompt.
        identity, session_header: How requests name their session.
        more: Fields of every body.
        headers: Of every request.
        timeout_s: The longest silence.
    """

    reply_length: ReplyLength = ReplyLength.AUTO
    history: History = History.REPLIES
    identity: SessionIdentity = SessionIdentity.HEADER
    session_header: str = "X-Session-ID"
    more: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    headers: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load test.

    Attributes:
        base_url: Of the server, without ``/v1``.
        model: To ask for; None for the only one that the server has.
        workload: Whose sessions are played.
        arrivals: When they start.
        num_sessions: Closed loop: so many at a time. Open loop: so many start at most; None for as
            many as come.
        phases: For how long.
        objectives: What is good.
        speech: How the server is spoken to.
        gap_scale: Tool gaps, and a trace's times, are so many times as long as recorded.
        after_error: What a session does then.
        seed: Of arrivals.
        salt: Of prompts: a run with another salt shares no prefix with this one.
    """

    base_url: str
    model: str | None
    workload: Workload
    arrivals: Arrivals
    num_sessions: int | None
    phases: Phases
    objectives: Objectives = field(default_factory=Objectives)
    speech: Speech = field(default_factory=Speech)
    gap_scale: float = 1.0
    after_error: AfterError = AfterError.END
    seed: int = 0
    salt: str = ""

    def check(self) -> None:
        """Refuse what can't be run.

        Raises:
            ConfigError: Names the option.
        """
        if not self.workload.sessions:
            raise ConfigError(f"--workload {self.workload.name}: it has no sessions")
        if self.arrivals.kind is ArrivalKind.TRACE and self.workload.arrives_s is None:
            raise ConfigError(
                f"--arrival trace: {self.workload.name} does not say when its sessions came; use "
                "closed or poisson:RATE"
            )
        if self.arrivals.kind is ArrivalKind.TRACE and self.phases.ramp_s:
            raise ConfigError("--ramp: a trace's arrivals have their own times; use --warmup")
        if self.arrivals.kind is ArrivalKind.CLOSED and self.num_sessions is None:
            raise ConfigError("--sessions: a closed loop needs to know how many at a time")
