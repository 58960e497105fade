"""What Panjiu is installed from: locks that fit what is asked for, and a base that stands alone."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import dependencies
from tools.dependencies import BASE, BUILD_TOOLS, FUZZER, LOCKS, ROOT, TOOLS, UNLOCKED

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BASE_WANTED: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
WANTED = {
    BASE: BASE_WANTED,
    **{name: [*BASE_WANTED, *wanted] for name, wanted in EXTRAS.items() if name not in UNLOCKED},
    "build": [*PROJECT["build-system"]["requires"], *BUILD_TOOLS],
    "fuzz": [*BASE_WANTED, *EXTRAS["engines"], *FUZZER],
    "supply": list(TOOLS),
}
PACKAGES = ("agent_runtime", "scheduler", "hw_model")
LAZY = {"httptools", "mcp", "opentelemetry", "redis", "uvloop", "vllm", "zmq", "matplotlib"}
"""Of extras; imported where they are needed, or in modules that only those import who need them."""


def pins(name: str) -> dict[str, set[str]]:
    """Return the versions that a lock has of every release."""
    found: dict[str, set[str]] = {}
    for line in (LOCKS / f"{name}.txt").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^ ;\\]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def test_every_lock_is_of_something_and_everything_has_one() -> None:
    assert {path.stem for path in LOCKS.glob("*.txt")} == set(WANTED)
    assert set(UNLOCKED) <= set(EXTRAS)


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_what_is_asked_for_within_its_range(name: str) -> None:
    locked = pins(name)
    for text in WANTED[name]:
        wanted = Requirement(text)
        versions = locked.get(canonicalize_name(wanted.name))
        assert versions, f"{wanted.name} is not in requirements/{name}.txt: run 'make lock'"
        for version in versions:
            assert wanted.specifier.contains(version), f"{text}, locked {version}: run 'make lock'"


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_hashes_of_everything(name: str) -> None:
    entries = (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = [line for line in entries if line and not line.startswith("#")]
    assert pinned
    for line in pinned:
        assert re.search(r"==\S+.*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("name", [name for name in WANTED if name != "supply"])
def test_locks_are_of_one_choice(name: str) -> None:
    dev = pins("dev")
    for package, versions in pins(name).items():
        assert versions <= dev.get(package, versions), package


def imported_by_the_product() -> dict[str, set[str]]:
    """Return the top-level modules that our packages import, and where."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                for name in names:
                    found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


def test_the_base_asks_for_what_is_imported_and_for_nothing_else() -> None:
    own = set(PACKAGES) | set(sys.stdlib_module_names)
    distributions = packages_distributions()
    imported = {
        canonicalize_name(distributions.get(name, [name])[0])
        for name in imported_by_the_product().keys() - own - LAZY
    }
    asked_for = {canonicalize_name(Requirement(text).name) for text in BASE_WANTED}
    assert imported - {"pydantic-core"} == asked_for, "pydantic pins its own core"


def test_every_dependency_of_the_base_is_justified() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE))
    assert listed == {canonicalize_name(Requirement(text).name) for text in BASE_WANTED}


HIDDEN = f"import sys\nsys.modules.update(dict.fromkeys({sorted(LAZY)}))\n"
"""What is None there can't be imported."""


def test_the_command_and_the_sdk_come_up_without_any_extra() -> None:
    program = HIDDEN + (
        "import agent_runtime.sdk\n"
        "from agent_runtime.cli.main import main\n"
        "sys.argv = ['panjiu', 'simulate', '--sessions', 'coding-agents', '--limit', '2']\n"
        "assert main(['rack']) == 0\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert main(['serve', '--engine', 'http://127.0.0.1:1']) == 2\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'panjiu[engines]'" in done.stderr


def audited(
    monkeypatch: pytest.MonkeyPatch, holes: dict[str, list[dict[str, Any]]], **more: Any
) -> int:
    """Audit with a service that knows these holes, by lock."""

    def answer(lock: Path, option: str) -> tuple[int, dict[str, Any]]:
        vulns = holes.get(lock.stem, [])
        one = {"name": "urllib3", "version": "1", "vulns": vulns}
        return int(bool(vulns)), {"dependencies": [one]}

    monkeypatch.setattr(dependencies, "_audited", answer)
    return dependencies.audit_locks(**{"if_reachable": False, **more})


def test_a_service_that_knows_no_holes_at_all_is_no_good_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = {"id": "CVE-2019-11324", "fix_versions": ["1.24.2"]}
    assert audited(monkeypatch, {}) == dependencies.UNREACHABLE
    assert "NOT AUDITED" in capsys.readouterr().err
    assert audited(monkeypatch, {}, if_reachable=True) == 0
    assert "NOT AUDITED" in capsys.readouterr().err
    assert audited(monkeypatch, {"bad": [hole]}) == 0
    assert audited(monkeypatch, {"bad": [hole], "base": [hole]}) == dependencies.FOUND
    assert "CVE-2019-11324, fixed in ['1.24.2']" in capsys.readouterr().out
