"""Runs a program in virtual time under every Python there is and compares the event logs.

    python tools/same_on_every_python.py PROGRAM.py [PROGRAM.py ...]

Each Python gets a venv of its own under .venv-pythons. The logs, and what the programs print, must
be equal to the byte. With one Python alone there is nothing to compare, and it says so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / ".venv-pythons"
VERSIONS = ("3.11", "3.12", "3.13")


def pythons() -> Iterator[tuple[str, str]]:
    """Yield (version, executable) of each Python that is installed and starts."""
    roots = sorted(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/*"))
    for version in VERSIONS:
        name = f"python{version}"
        candidates = [shutil.which(name), *(str(root / "bin" / name) for root in roots)]
        for candidate in candidates:
            if candidate is not None and _starts(candidate):
                yield version, candidate
                break


def _starts(python: str) -> bool:
    try:
        code = subprocess.run([python, "-c", "import venv"], capture_output=True, check=False)
    except OSError:
        return False
    return code.returncode == 0


def venv_of(version: str, python: str) -> Path:
    """Return the executable of a venv with the project in it, made if need be."""
    home = VENVS / version
    executable = home / "bin" / "python"
    installed = home / ".installed"
    newest = (ROOT / "pyproject.toml").stat().st_mtime
    if not installed.exists() or installed.stat().st_mtime < newest:
        subprocess.run([python, "-m", "venv", str(home)], check=True)
        pip = [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-e", f"{ROOT}[examples]"], check=True)
        installed.touch()
    return executable


def digest(python: Path, program: str) -> str:
    """Run a program; return a digest of its event log and its output."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        command = [
            str(python), "-m", "agent_runtime.cli.main", "run", program, "--virtual",
            "--seed", "1", "--quiet", "--event-log", str(log),
        ]  # fmt: skip
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"},
        )
        if done.returncode:
            sys.exit(f"{program} failed under {python}:\n{done.stderr.decode()}")
        return hashlib.sha256(log.read_bytes() + done.stdout).hexdigest()


def main() -> int:
    """Print a line for every program and Python; return 1 if any differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="+", metavar="PROGRAM.py")
    args = parser.parse_args()
    found = {version: venv_of(version, python) for version, python in pythons()}
    if len(found) < 2:  # noqa: PLR2004 - two to compare
        print(f"only Python {', '.join(found) or 'none'} is installed: nothing to compare")
        return 0
    equal = True
    for program in args.programs:
        digests = {version: digest(python, program) for version, python in found.items()}
        for version, value in digests.items():
            print(f"{program}  Python {version}  {value[:16]}")
        equal = equal and len(set(digests.values())) == 1
    print("the same to the byte" if equal else "NOT the same")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
