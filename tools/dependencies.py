"""What Panjiu is installed from: locks it, asks whether holes are known in it, and lists it.

    python tools/dependencies.py lock         writes requirements/*.txt anew ('make lock')
    python tools/dependencies.py audit        known vulnerabilities of what is locked ('make audit')
    python tools/dependencies.py sbom         dist/sbom/*.cdx.json, CycloneDX ('make sbom')

It runs uv, pip-audit and cyclonedx-py of its own venv (``requirements/supply.txt``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
SBOMS = ROOT / "dist" / "sbom"
OLDEST_PYTHON = "3.11"
BASE = "base"
UNLOCKED = {"vllm": "it pins torch and hundreds more itself, and needs another mcp than ours"}
TOOLS = ("cyclonedx-bom>=7,<8", "pip-audit>=2.9,<3", "uv>=0.9,<1")
BUILD_TOOLS = ("editables>=0.5,<1",)
"""Beside the build-system's own requirements: what an editable install needs."""
FUZZER = ("atheris>=3,<4",)

KNOWN_TO_BE_BAD = "urllib3==1.24.1"
"""A service that knows of nothing in it knows nothing: it has had CVE-2019-11324 since 2019."""
FOUND, UNREACHABLE = 1, 3


def main() -> int:
    """Do what is asked."""
    parser = argparse.ArgumentParser(
        prog="python tools/dependencies.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock").add_argument("--upgrade", action="store_true", help="to the newest")
    audit = commands.add_parser("audit")
    audit.add_argument(
        "--if-reachable",
        action="store_true",
        help="say so and succeed where no service answers; found holes fail all the same",
    )
    commands.add_parser("sbom")
    args = parser.parse_args()
    match args.command:
        case "lock":
            return write_locks(upgrade=args.upgrade)
        case "audit":
            return audit_locks(if_reachable=args.if_reachable)
        case _:
            return write_sboms()


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked_extras() -> list[str]:
    """Return the extras that have a lock."""
    return [name for name in project()["project"]["optional-dependencies"] if name not in UNLOCKED]


def write_locks(*, upgrade: bool) -> int:
    """Write a lock for the base install and one for every extra, all of one choice of versions.

    Args:
        upgrade: Whether to take the newest there are; else what is locked stays where it can.
    """
    LOCKS.mkdir(exist_ok=True)
    own = project()
    extras = locked_extras()
    with tempfile.TemporaryDirectory() as folder:
        build = _wanted(folder, "build", (*own["build-system"]["requires"], *BUILD_TOOLS))
        fuzzer = _wanted(folder, "fuzz", FUZZER)
        known = [] if upgrade else [f"--constraint={path}" for path in _old_locks(folder)]
        chosen = Path(folder, "chosen.txt")
        options = [*(f"--extra={name}" for name in extras), *known]
        _compile(chosen, ["pyproject.toml", build, fuzzer, *options])
        rest = f"--constraint={chosen}"
        for name in extras:
            _compile(LOCKS / f"{name}.txt", ["pyproject.toml", f"--extra={name}", rest])
        _compile(LOCKS / f"{BASE}.txt", ["pyproject.toml", rest])
        _compile(LOCKS / "build.txt", [build, rest])
        _compile(LOCKS / "fuzz.txt", ["pyproject.toml", "--extra=engines", fuzzer, rest])
        _compile(LOCKS / "supply.txt", [_wanted(folder, "supply", TOOLS)])
    for name, why in UNLOCKED.items():
        print(f"{name}: no lock: {why}")
    return 0


def _wanted(folder: str, name: str, requirements: Sequence[str]) -> str:
    path = Path(folder, f"{name}.in")
    path.write_text("\n".join(requirements) + "\n")
    return str(path)


def _old_locks(folder: str) -> list[Path]:
    """Return the versions that are locked, without their hashes, as constraints."""
    kept = []
    for path in sorted(LOCKS.glob("*.txt")):
        if path.stem == "supply":
            continue
        lines = [line.rstrip(" \\") for line in path.read_text().splitlines() if "==" in line]
        kept.append(Path(folder, path.name))
        kept[-1].write_text("\n".join(line for line in lines if not line.startswith(" ")) + "\n")
    return kept


def _compile(target: Path, sources: Sequence[str]) -> None:
    """Write a lock: for every system and Python, with the hashes of all files of every version."""
    header = (
        f"# By 'make lock'. Not to be edited.\n# pip install --require-hashes -r {target.name}\n"
    )
    options = ("--universal", f"--python-version={OLDEST_PYTHON}", "--generate-hashes", "--quiet")
    plain = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-config")
    _run("uv", "pip", "compile", *options, *plain, *sources, f"--output-file={target}")
    target.write_text(header + target.read_text())


def audit_locks(*, if_reachable: bool) -> int:
    """Ask the service whether vulnerabilities are known, first of a release that has some.

    pip-audit calls a release that its service does not know "no known vulnerabilities", so what it
    says of others is worth nothing before it has found those.
    """
    with tempfile.TemporaryDirectory() as folder:
        bad = Path(folder, "bad.txt")
        bad.write_text(KNOWN_TO_BE_BAD + "\n")
        code, report = _audited(bad, "--no-deps")
    if not report.get("dependencies") or not report["dependencies"][0].get("vulns"):
        print(
            f"NOT AUDITED: the service for vulnerabilities knows none of {KNOWN_TO_BE_BAD}, which "
            "has some (it is not reachable, or a mirror of PyPI without them). Run 'make audit' "
            "where https://pypi.org answers itself.",
            file=sys.stderr,
        )
        return 0 if if_reachable else UNREACHABLE
    worst = 0
    for lock in sorted(LOCKS.glob("*.txt")):
        code, report = _audited(lock, "--require-hashes")
        skipped = [one["name"] for one in report.get("dependencies", ()) if "skip_reason" in one]
        found = [
            f"{one['name']} {one['version']}: {hole['id']}, fixed in {hole['fix_versions'] or '-'}"
            for one in report.get("dependencies", ())
            for hole in one.get("vulns", ())
        ]
        about = f"{lock.name}: {len(report.get('dependencies', ()))} releases, {len(found)} holes"
        print(about + (f", not checked: {', '.join(skipped)}" if skipped else ""))
        for line in found:
            print(f"  {line}")
        worst = max(worst, FOUND if code or found or skipped else 0)
    return worst


def _audited(lock: Path, option: str) -> tuple[int, dict[str, Any]]:
    command = [_tool("pip-audit"), "--disable-pip", option, "--format=json", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        print(done.stderr.strip()[-2000:], file=sys.stderr)
        return done.returncode or 1, {}


def write_sboms() -> int:
    """Write a bill of materials for the base install and one for every extra."""
    SBOMS.mkdir(parents=True, exist_ok=True)
    for name in (BASE, *locked_extras()):
        target = SBOMS / f"panjiu-{name}.cdx.json"
        options = ("--pyproject=pyproject.toml", "--output-reproducible", "--output-format=JSON")
        lock = f"requirements/{name}.txt"
        _run("cyclonedx-py", "requirements", *options, f"--output-file={target}", lock)
        parts = json.loads(target.read_text())["components"]
        print(f"{target.relative_to(ROOT)}: {len(parts)} components")
    for name, why in UNLOCKED.items():
        print(f"{name}: no list: {why}")
    return 0


def _run(tool: str, *arguments: str) -> None:
    # cyclonedx-py warns that a lock does not tell who needs what.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}
    subprocess.run([_tool(tool), *arguments], cwd=ROOT, check=True, env=quiet)


def _tool(name: str) -> str:
    """Return a program of the venv that runs this."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise SystemExit(
            f"{name} is not in this venv: run 'make lock', 'make audit' or 'make sbom'"
        )
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
