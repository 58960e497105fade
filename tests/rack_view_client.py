"""What reads the messages of a rack view, as its page does: checks them, puts frames together."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = Path(__file__).parent / "data" / "rack_view.schema.json"


@cache
def validator(name: str | None = None) -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    if name is not None:
        schema = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    return jsonschema.Draft202012Validator(schema)


class Watcher:
    """The state that frames lead to."""

    def __init__(self) -> None:
        self.layout: dict[str, Any] = {}
        self.sessions: dict[str, list[Any]] = {}
        self.last: dict[str, Any] = {}
        self.stories: dict[str, Any] = {}
        self.moves: list[list[Any]] = []
        self.latest: list[list[Any]] = []
        self.num_frames = 0

    def take(self, message: dict[str, Any]) -> None:
        validator().validate(message)
        match message["kind"]:
            case "layout":
                self.layout = message
            case "stories":
                self.stories = message["turns"]
            case _:
                self._take_frame(message)

    def state_of(self, session: str) -> str:
        return str(self.layout["states"][self.sessions[session][1]])

    def _take_frame(self, frame: dict[str, Any]) -> None:
        assert not self.last or frame["t"] >= self.last["t"]
        if frame["whole"]:
            self.sessions = {}
        for gone in frame["gone"]:
            self.sessions.pop(gone, None)
        for row in frame["sessions"]:
            self.sessions[row[0]] = row
        self.moves += frame["moves"]
        self.latest += frame["latest"]
        self.last = frame
        self.num_frames += 1


def watched(lines: bytes) -> Watcher:
    """Return what a recording's messages lead to."""
    watcher = Watcher()
    for line in lines.splitlines():
        watcher.take(json.loads(line))
    return watcher
