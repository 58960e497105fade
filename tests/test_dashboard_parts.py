"""What the dashboard's page is made of; no browser is needed for that."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from agent_runtime.rack_view.page import MODULES, dashboard_page

MAX_PAGE_BYTES = 150_000
ASSETS = files("agent_runtime.rack_view").joinpath("assets")


def test_it_is_small_with_all_that_it_needs() -> None:
    assert len(dashboard_page().encode()) < MAX_PAGE_BYTES


def test_its_policy_allows_its_own_script_and_styles_and_nothing_else() -> None:
    page = dashboard_page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy
    assert script
    assert style
    rules = dict(rule.split(" ", 1) for rule in policy.group(1).split("; "))
    for name, text in (("script-src", script.group(1)), ("style-src", style.group(1))):
        assert rules[name] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "connect-src 'none'" in dashboard_page(b"")


def test_every_module_is_in_it_after_those_that_it_imports() -> None:
    assert {f"{name}.js" for name in MODULES} == {
        asset.name for asset in ASSETS.iterdir() if asset.name.endswith(".js")
    }
    for number, name in enumerate(MODULES):
        source = ASSETS.joinpath(f"{name}.js").read_text(encoding="utf-8")
        imported = re.findall(r'from "\./(\w+)\.js"', source)
        assert set(imported) <= set(MODULES[:number]), name


def test_no_module_makes_markup_out_of_text() -> None:
    sources = "".join(ASSETS.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in MODULES)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", sources)
