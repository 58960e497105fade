"""Of whatever is asked of make there is a rule: without one, a phony name is silently done."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Makefile").read_text().replace("\\\n", " ")
RULES = set(re.findall(r"^([\w-]+):(?!=)", TEXT, re.MULTILINE))
PAGES = [ROOT / ".ci" / "run", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
ASKED = r"make (?:[A-Z]+=\S+ )*([a-z][\w-]*)"


def test_every_phony_name_has_a_rule() -> None:
    phony = {
        name for line in re.findall(r"^\.PHONY:(.*)", TEXT, re.MULTILINE) for name in line.split()
    }
    assert phony == RULES


def asked_by(page: Path) -> set[str]:
    text = page.read_text()
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL) if page.suffix else [text]
    lines = {name for block in blocks for name in re.findall(f"^{ASKED}", block, re.MULTILINE)}
    return lines | set(re.findall(f"`{ASKED}", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_make_can_be_made(page: Path) -> None:
    assert asked_by(page) <= RULES


def test_pages_are_looked_at() -> None:
    assert {"check", "test", "test-vllm"} <= asked_by(ROOT / ".ci" / "run")
    assert {"demo", "test-vllm"} <= asked_by(ROOT / "README.md")
    assert "lock" in asked_by(ROOT / "docs" / "dependencies.md")
