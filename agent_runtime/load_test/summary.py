"""What a load test says: its JSON, documented in docs/loadtest.md."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from agent_runtime.measurement.summary import Distribution

FORMAT = "panjiu-loadtest/1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LoadInputs(_Frozen):
    """What was asked for, and what was found out about the server."""

    url: str
    model: str
    workload: str
    arrival: str
    sessions: int | None
    ramp_s: float
    warmup_s: float
    duration_s: float | None
    drain_s: float
    gap_scale: float
    reply_length: str
    history: str
    session_identity: str
    after_error: str
    seed: int
    salt: str
    slo_ttft_s: float | None
    slo_tpot_s: float | None
    tokens_per_word: float
    counts_from: str


class Window(_Frozen):
    """The time that counts, in seconds since the load began."""

    start_s: float
    end_s: float

    def holds(self, at_s: float) -> bool:
        """Tell whether a time counts; nothing starts at the end, unless the run ends with it."""
        return self.start_s <= at_s <= self.end_s

    @property
    def length_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


class TurnCounts(_Frozen):
    """Turns that were due in the window."""

    due: int
    answered: int
    failed: int
    unfinished: int


class LoadedSessions(_Frozen):
    """Sessions that were due in the window, without sub-agents; ``stopped`` by the run's end."""

    due: int
    completed: int
    failed: int
    stopped: int


class Throughput(_Frozen):
    """A second of the window, whatever turn it belongs to."""

    turns_per_s: float | None
    output_tokens_per_s: float | None
    prompt_tokens_per_s: float | None
    streams_mean: float | None
    streams_max: int


class Goodput(_Frozen):
    """Turns and sessions that kept the objectives."""

    turns: int
    turns_per_s: float | None
    turn_ratio: float | None
    sessions: int
    session_ratio: float | None


class TokenCounts(_Frozen):
    """Of answered turns; what the server counts beside what the script has."""

    prompt: int | None
    prompt_wanted: int
    prompt_off_mean: float | None
    prompt_off_max: float | None
    output: int
    output_wanted: int
    cached: int | None
    cached_ratio: float | None
    tokens_per_chunk: float | None


class ErrorCount(_Frozen):
    """Errors of one kind, in the whole run."""

    kind: str
    count: int
    example: str
    first_s: float


class ClientState(_Frozen):
    """Whether the client kept up in the window."""

    loop_lag_s: Distribution
    send_delay_s: Distribution
    cpu_share: float | None
    is_limit: bool


class LoadTimeline(_Frozen):
    """The whole run in equal bins; a list each."""

    bin_s: float
    streams: list[float]
    output_tokens_per_s: list[float]
    ttft_p50_s: list[float | None]
    errors: list[int]


class TurnColumns(_Frozen):
    """Every turn that was due in the window, a list a field; null where there is none."""

    session: list[str]
    turn: list[int]
    due_s: list[float]
    ttft_s: list[float | None]
    tpot_s: list[float | None]
    e2e_s: list[float | None]
    output_tokens: list[int]
    error: list[str | None]


class LoadSummary(_Frozen):
    """One load test."""

    format: str = FORMAT
    version: str
    inputs: LoadInputs
    interrupted: bool
    window: Window
    sessions: LoadedSessions
    turns: TurnCounts
    ttft_s: Distribution
    itl_s: Distribution
    token_gap_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    jct_s: Distribution
    throughput: Throughput
    goodput: Goodput
    tokens: TokenCounts
    errors: list[ErrorCount]
    client: ClientState
    warnings: list[str]
    notes: list[str]
    timeline: LoadTimeline
    columns: TurnColumns
