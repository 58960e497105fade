"""Finished cells on disk, so that a comparison that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from agent_runtime.comparison.cell import Bench, Cell, CellResult
from agent_runtime.errors import ConfigError

SOURCES = (
    "hw_model",
    "scheduler",
    *(f"agent_runtime/{name}" for name in ("backends", "measurement", "simulation", "workload")),
    *(f"agent_runtime/comparison/{name}.py" for name in ("capacity", "cell", "offered_load")),
)
"""A result is as good as the code it came from."""


def bench_digest(bench: Bench) -> str:
    """Return a digest of all that a cell's result depends on, but for the cell itself."""
    digest = hashlib.blake2b(version("panjiu").encode(), digest_size=12)
    root = Path(__file__).resolve().parents[2]
    for source in SOURCES:
        place = root / source
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    for part in (
        bench.workload.sessions,
        bench.deployment,
        bench.band,
        bench.num_sessions,
        bench.host_bytes_per_chip,
        bench.slo_slowdown,
        bench.limits,
        bench.ttft_boundary,
    ):
        digest.update(repr(part).encode())
    return digest.hexdigest()


class CellStore:
    """One JSON object a line in ``cells.jsonl``, each with the digest of what it came from.

    Args:
        directory: Made if it is not there; None keeps nothing.
        digest: Of the comparison; results of others in the file are left alone and not used.

    Raises:
        ConfigError: The directory can't be used.
    """

    def __init__(self, directory: Path | None, digest: str) -> None:
        self._path = None if directory is None else directory / "cells.jsonl"
        self._digest = digest
        self.results: dict[Cell, CellResult] = {}
        if directory is None or self._path is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                self._read(self._path)
        except OSError as error:
            raise ConfigError(f"--out {directory}: {error}; choose another directory") from error

    def add(self, result: CellResult) -> None:
        """Keep a result; it is in the file when this returns."""
        self.results[_cell(result)] = result
        if self._path is not None:
            line = json.dumps({"of": self._digest, **result.model_dump()})
            with self._path.open("a") as file:
                file.write(line + "\n")

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            # Whoever wrote the last line was killed; what is added must not continue it.
            with path.open("ab") as file:
                file.write(b"\n")
        for line in data.splitlines():
            try:
                fields = json.loads(line)
                if fields.pop("of", None) == self._digest:
                    result = CellResult.model_validate(fields)
                    self.results[_cell(result)] = result
            except (ValueError, AttributeError, TypeError):
                continue  # a torn line, or another version's: its cell runs again


def _cell(result: CellResult) -> Cell:
    return Cell(result.policy, result.load, result.seed)
