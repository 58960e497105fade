"""Write the Grafana dashboard: ``python -m tools.grafana_dashboard [FILE]``.

Panels flow from left to right in rows of 24 columns, so none overlap; their numbers are their
places. The expressions are what is worth reading here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "docs/grafana/panjiu.json"
SCHEMA_VERSION = 39
"""Of Grafana 11.0; newer ones migrate it when they read it."""
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
STATES = ("down", "draining", "up")
STATE_COLOURS = ("red", "yellow", "green")


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks.

    Attributes:
        expression: In PromQL.
        legend: With labels in double braces.
    """

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel.

    Attributes:
        kind: Grafana's name of what draws it.
        about: What the figure means, and what to do about it.
        width: Of 24 columns.
        unit: Grafana's name of it.
        more: Members of its defaults that differ.
        options: What its kind takes.
    """

    title: str
    kind: str
    about: str
    queries: Sequence[Query]
    width: int = 8
    height: int = 8
    unit: str = "short"
    more: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Section:
    """A row of panels under a title."""

    title: str
    panels: Sequence[Panel]


def of(metric: str, *more: str) -> str:
    """Return a metric of the servers chosen, and with more labels."""
    labels = ", ".join(('job=~"$job"', 'instance=~"$instance"', *more))
    return f"{metric}{{{labels}}}"


def quantiles(metric: str) -> list[Query]:
    """Return p50, p95 and p99 of a histogram over all servers chosen."""
    rates = f"sum by (le) (rate({of(metric + '_bucket')}[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({share}, {rates})", name)
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def rate(metric: str, by: str = "", *more: str) -> str:
    """Return a counter's rate, summed but for some labels."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({of(metric, *more)}[$__rate_interval]))"


UP, DRAINING = 'state="up"', 'state="draining"'
NOT_FAILED = 'outcome!="failed"'
HITS = f"{rate('panjiu_cached_prompt_tokens_total')} / {rate('panjiu_prompt_tokens_total')}"
ENGINE_STATE = (
    f"2 * sum by (replica, url) ({of('panjiu_engine_state', UP)}) "
    f"+ sum by (replica, url) ({of('panjiu_engine_state', DRAINING)})"
)
"""By the places in ``STATES``."""
NOT_CLOSED = of("panjiu_engine_breaker_state", 'state!="closed"')
SHARE = {"min": 0, "max": 1}
STACKED = {
    "custom": {"fillOpacity": 40, "lineWidth": 1, "stacking": {"mode": "normal", "group": "A"}}
}
STATE_MAPPINGS = {
    "mappings": [
        {
            "type": "value",
            "options": {
                str(number): {"text": state, "color": colour, "index": number}
                for number, (state, colour) in enumerate(zip(STATES, STATE_COLOURS, strict=True))
            },
        }
    ]
}

NOW = Section(
    "Now",
    [
        Panel("Turns a second", "stat", "Requests that ended, however.",
              [Query(rate("panjiu_turns_total"), "turns")], width=4, height=4, unit="reqps"),
        Panel("Held turns", "stat", "Requests that wait to run. Many for long: no room.",
              [Query(f"sum({of('panjiu_held_turns')})", "held")], width=4, height=4),
        Panel("Sessions", "stat", "Conversations that are known.",
              [Query(f"sum({of('panjiu_sessions')})", "sessions")], width=4, height=4),
        Panel("Prefix hit ratio", "stat", "Of prompt tokens, those found in KV caches.",
              [Query(HITS, "hits")], width=4, height=4, unit="percentunit", more=SHARE),
        Panel("TTFT p95", "stat", "From a request's arrival to its first token.",
              [quantiles("panjiu_time_to_first_token_seconds")[1]], width=4, height=4, unit="s"),
        Panel("Failed turns", "stat", "Of turns in the last minutes, the backend's fault.",
              [Query(f"1 - {rate('panjiu_turns_total', '', NOT_FAILED)} / "
                     f"{rate('panjiu_turns_total')}", "failed")],
              width=4, height=4, unit="percentunit"),
    ],
)  # fmt: skip
TURNS = Section(
    "Turns and sessions",
    [
        Panel("Turns by outcome", "timeseries",
              "refused: the caller's fault; failed: the backend's; aborted: the client left.",
              [Query(rate("panjiu_turns_total", "outcome"), "{{outcome}}")],
              unit="reqps", more=STACKED),
        Panel("Turns by API", "timeseries", "Which of the endpoint's APIs clients use.",
              [Query(rate("panjiu_turns_total", "dialect"), "{{dialect}}")],
              unit="reqps", more=STACKED),
        Panel("Sessions and held turns", "timeseries",
              "Conversations that are known, and requests that wait to run.",
              [Query(f"sum({of('panjiu_sessions')})", "sessions"),
               Query(f"sum({of('panjiu_held_turns')})", "held turns")]),
        Panel("Newcomers", "timeseries",
              "Sessions whose first turn waits, and those turned away a second: too many waited.",
              [Query(f"sum({of('panjiu_waiting_newcomers')})", "waiting"),
               Query(rate("panjiu_turned_away_total"), "turned away")]),
        Panel("Journal", "timeseries",
              "Writings and readings that failed a second: a restart would forget what came since.",
              [Query(rate("panjiu_journal_problems_total"), "problems")]),
        Panel("Time to first token", "timeseries", "Held time included.",
              quantiles("panjiu_time_to_first_token_seconds"), unit="s"),
        Panel("Hold time", "timeseries",
              "From a turn's arrival at the scheduler to its dispatch: what the scheduler adds.",
              quantiles("panjiu_hold_time_seconds"), unit="s"),
        Panel("Prefix hit ratio", "timeseries",
              "Of prompt tokens, those found in KV caches. Falls when sessions lose their KV.",
              [Query(HITS, "hits")], unit="percentunit", more=SHARE),
        Panel("Tokens", "timeseries", "Of answered requests.",
              [Query(f"{rate('panjiu_prompt_tokens_total')} - "
                     f"{rate('panjiu_cached_prompt_tokens_total')}", "prompt, computed"),
               Query(rate("panjiu_cached_prompt_tokens_total"), "prompt, cached"),
               Query(rate("panjiu_output_tokens_total"), "output")],
              width=24, unit="short", more=STACKED),
    ],
)  # fmt: skip
REPLICAS = Section(
    "Replicas",
    [
        Panel("Running", "timeseries", "Requests in each replica's batch.",
              [Query(of("panjiu_replica_running_requests"), "{{replica}}")], more=STACKED),
        Panel("Waiting", "timeseries",
              "Requests in each replica's queue, where the scheduler can't order them any more.",
              [Query(of("panjiu_replica_waiting_requests"), "{{replica}}")], more=STACKED),
        Panel("KV held by requests", "timeseries",
              "The fullest, the mean and the emptiest replica.",
              [Query(f"max({of('panjiu_replica_kv_usage_ratio')})", "most"),
               Query(f"avg({of('panjiu_replica_kv_usage_ratio')})", "mean"),
               Query(f"min({of('panjiu_replica_kv_usage_ratio')})", "least")],
              unit="percentunit", more=SHARE),
        Panel("KV held by requests, by replica", "bargauge",
              "Share of KV blocks that requests hold now.",
              [Query(of("panjiu_replica_kv_usage_ratio"), "{{replica}}")],
              width=24, unit="percentunit", more=SHARE,
              options={"orientation": "vertical", "displayMode": "gradient",
                       "reduceOptions": {"calcs": ["lastNotNull"]}}),
    ],
)  # fmt: skip
ENGINES = Section(
    "Engines",
    [
        Panel("State", "state-timeline", "Of each engine; nothing without --engine.",
              [Query(ENGINE_STATE, "{{replica}} {{url}}")],
              width=12, more=STATE_MAPPINGS, options={"mergeValues": True}),
        Panel("Breakers that are not closed", "timeseries",
              "An engine whose breaker is open gets no turns; half open, it is tried.",
              [Query(f"sum by (replica, state) ({NOT_CLOSED}) > 0", "{{replica}} {{state}}")],
              width=12),
        Panel("Retried and resumed", "timeseries",
              "Calls sent to another engine from the beginning, and replies gone on with there.",
              [Query(rate("panjiu_retried_calls_total"), "retried"),
               Query(rate("panjiu_resumed_turns_total"), "resumed")], unit="reqps"),
        Panel("Failures", "timeseries", "Calls and looks at /health that failed, by engine.",
              [Query(rate("panjiu_engine_failures_total", "replica"), "{{replica}}")],
              unit="reqps"),
        Panel("Turns under way", "timeseries", "By engine.",
              [Query(of("panjiu_engine_turns"), "{{replica}}")], more=STACKED),
        Panel("Known KV", "timeseries", "Blocks that engines' KV events say they have.",
              [Query(of("panjiu_engine_known_kv_blocks"), "{{replica}}")], width=12),
        Panel("KV events", "timeseries",
              "Engines whose KV events are read, and sessions whose KV is known from them.",
              [Query(f"sum({of('panjiu_engine_kv_events')})", "engines"),
               Query(f"sum({of('panjiu_resident_sessions')})", "sessions")], width=12),
    ],
)  # fmt: skip
EMULATION = Section(
    "panjiu emulate",
    [
        Panel("Lateness of tokens", "timeseries",
              "Real seconds behind what the engine model computed: over 20 ms, times measured on "
              "the emulation are too long.",
              quantiles("panjiu_lateness_seconds"), width=24, unit="s"),
    ],
)  # fmt: skip
PROCESS = Section(
    "Process",
    [
        Panel("Tasks", "timeseries", "Asynchronous ones; what grows from day to day leaks.",
              [Query(of("panjiu_tasks"), "{{instance}}")]),
        Panel("File descriptors", "timeseries", "Open ones, and how many there may be.",
              [Query(of("process_open_fds"), "{{instance}} open"),
               Query(of("process_max_fds"), "{{instance}} at most")]),
        Panel("Memory", "timeseries", "Resident, and addresses.",
              [Query(of("process_resident_memory_bytes"), "{{instance}} resident"),
               Query(of("process_virtual_memory_bytes"), "{{instance}} addresses")], unit="bytes"),
        Panel("CPU and age", "timeseries", "Cores in use, and days since the start.",
              [Query(rate("process_cpu_seconds_total", "instance"), "{{instance}} cores"),
               Query(f"(time() - {of('process_start_time_seconds')}) / 86400",
                     "{{instance}} days")]),
    ],
)  # fmt: skip
SECTIONS = (NOW, TURNS, REPLICAS, ENGINES, EMULATION, PROCESS)


def dashboard(sections: Sequence[Section] = SECTIONS) -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for section in sections:
        panels.append(_row(section.title, len(panels) + 1, top))
        top += 1
        left = height = 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_panel(panel, len(panels) + 1, place))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return {
        "uid": "panjiu-serve",
        "title": "Panjiu",
        "description": "Turns, sessions, replicas and engines of panjiu serve.",
        "tags": ["panjiu", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": place,
        "panels": [],
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.more}, "overrides": []},
        "options": panel.options,
        "targets": [
            {
                "refId": chr(ord("A") + place_in_panel),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for place_in_panel, query in enumerate(panel.queries)
        ],
    }


def _variables() -> list[dict[str, Any]]:
    chosen_by = {
        "job": "label_values(panjiu_sessions, job)",
        "instance": 'label_values(panjiu_sessions{job=~"$job"}, instance)',
    }
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource"}
    return [
        {**source, "query": "prometheus", "refresh": 1, "hide": 0},
        *(
            {
                "name": name,
                "label": name,
                "type": "query",
                "datasource": DATASOURCE,
                "query": {"query": query, "refId": name},
                "definition": query,
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]},
                "hide": 0,
            }
            for name, query in chosen_by.items()
        ),
    ]


def dashboard_text() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DASHBOARD
    path.write_text(dashboard_text(), encoding="utf-8")
    print(f"wrote {path}")
