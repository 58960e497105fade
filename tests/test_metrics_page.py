"""docs/metrics.md, the Grafana dashboard and the alerts name what is exposed, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.metric_pages import (
    OF_HISTOGRAMS,
    Exposed,
    exposed_by_emulate,
    exposed_by_emulated_serve,
    exposed_by_serve_before_engines,
)
from tools.grafana_dashboard import COLUMNS, DASHBOARD, Panel, Query, Section, dashboard
from tools.grafana_dashboard import dashboard_text as written

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[1] / "docs"
OF_VLLM = frozenset({"engine", "model_name"})
"""The table leaves these out, since all have them."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def told() -> dict[str, set[Exposed]]:
    """Return the tables of docs/metrics.md by their headings."""
    tables: dict[str, set[Exposed]] = {}
    heading = ""
    for line in (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            name, kind, labels, unit, meaning = cells
            assert unit
            assert meaning
            own = frozenset(re.findall(r"`(\w+)`", labels))
            if name.startswith("`vllm:") and not name.startswith("`vllm:cache_config_info"):
                own |= OF_VLLM
            one = Exposed(name.strip("`"), kind, own)
            tables.setdefault(heading, set()).add(one)
    return tables


async def test_the_tables_say_what_is_exposed_and_all_of_it() -> None:
    tables = told()
    of_serve, of_engines = tables["`panjiu serve`"], tables["Before engines, too"]
    assert await exposed_by_emulated_serve() == of_serve
    assert await exposed_by_serve_before_engines() == of_serve | of_engines
    assert await exposed_by_emulate() == tables["`panjiu emulate`"]
    assert len(tables) == 3


def named_in(expression: str) -> set[str]:
    """Return the metrics of a query."""
    return set(re.findall(r"\b(?:panjiu_|process_|vllm:)[a-z_:]+\b", expression))


def queryable() -> dict[str, frozenset[str]]:
    """Return what queries may name, with its labels."""
    names: dict[str, frozenset[str]] = {}
    for one in itertools.chain(*told().values()):
        for ending in OF_HISTOGRAMS if one.kind == "histogram" else ("",):
            names[one.name + ending] = one.labels | ({"le"} if ending == "_bucket" else set())
    return names


def expressions() -> list[str]:
    shown = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [query["expr"] for panel in shown["panels"] for query in panel.get("targets", [])]


def test_the_dashboard_asks_for_what_there_is() -> None:
    there = queryable()
    asked = expressions()
    assert len(asked) > 30
    for expression in asked:
        assert named_in(expression), expression
        for name in named_in(expression):
            assert name in there, expression
        for name, braces in re.findall(r"\b((?:panjiu_)\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)[!=~]+\"", braces))
            assert labels <= there[name] | {"job", "instance"}, expression
    shown = set().union(*map(named_in, asked))
    tables = told()
    for one in tables["`panjiu serve`"] | tables["Before engines, too"]:
        assert any(name.startswith(one.name) for name in shown), f"{one.name} is in no panel"


def test_queries_sum_by_labels_that_there_are() -> None:
    there = queryable()
    for expression in expressions():
        grouped = {
            label.strip() for found in re.findall(r"by \(([^)]*)\)", expression)
            for label in found.split(",")
        }  # fmt: skip
        labels = set().union(*(there[name] for name in named_in(expression)))
        assert grouped <= labels | {"job", "instance"}, expression


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == written(), "python -m tools.grafana_dashboard"


def check_form(shown: dict[str, Any]) -> None:
    """Check what Grafana wants of a dashboard."""
    assert shown["schemaVersion"] >= 39
    panels = shown["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells
        letters = [query["refId"] for query in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"].endswith(".")
            assert all(query["datasource"] == panel["datasource"] for query in panel["targets"])


def test_the_dashboard_has_the_form_that_grafana_takes() -> None:
    shown = dashboard()
    check_form(shown)
    names = [variable["name"] for variable in shown["templating"]["list"]]
    assert names == ["datasource", "job", "instance"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(shown)))
    assert used == {*names, "__rate_interval", "__all"}


def test_panels_flow_into_rows_without_overlap() -> None:
    query = [Query("x", "x")]
    panels = [Panel("p", "stat", "A.", query, width=w, height=h) for w, h in
              ((8, 8), (8, 4), (12, 6), (24, 3), (4, 4), (20, 9), (5, 2))]  # fmt: skip
    check_form(dashboard([Section("a", panels), Section("b", panels[::-1])]))


def test_alerts_name_what_there_is_and_are_explained() -> None:
    text = (DOCS / "grafana/alerts.yml").read_text(encoding="utf-8")
    rules = text.split("- alert: ")[1:]
    alerts = [rule.split("\n")[0] for rule in rules]
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Panjiu\w+)` \|", page, re.MULTILINE) == alerts
    there = queryable()
    for rule in rules:
        expression = rule.split("expr:")[1].split("labels: {severity")[0]
        assert named_in(expression) <= set(there), rule
        assert named_in(expression) or "up{" in expression
        assert "summary:" in rule
