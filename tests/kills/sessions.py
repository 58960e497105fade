"""Sessions of plain clients while everything around them is killed.

They ask for a turn until it was answered whole, at whichever gateway answers, and check what can be
checked of the words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import numpy as np

AGAIN = {429, 499, 502, 503, 504}
TURN_S = 90.0
TURNS_A_CONVERSATION = 12


@dataclass
class Session:
    """One session.

    Attributes:
        name: Of it.
        model: Asked for.
        checks_words: Whether engines say ``w0 w1 ...``.
        pause_s: Between two turns, at the most.
        speaks_responses: Whether it goes on by the response before.
        num_done: Turns answered.
        problems: Promises that were broken.
        ends: How attempts ended.
    """

    name: str
    model: str
    checks_words: bool
    speaks_responses: bool
    gateways: Sequence[str]
    rng: np.random.Generator
    pause_s: float
    num_done: int = 0
    problems: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    _messages: list[dict[str, Any]] = field(default_factory=list)
    _previous: str | None = None

    async def run(self, http: httpx2.AsyncClient, stop: anyio.Event) -> None:
        """Have turn after turn answered until told to stop, and then one more."""
        is_last = False
        while not is_last:
            is_last = stop.is_set()
            if self.num_done % TURNS_A_CONVERSATION == 0:  # models hold so much and no more
                self._messages, self._previous = [], None
            said = f"{' '.join(f'{self.name}.{self.num_done}.{i}' for i in range(30))}"
            turn = f"turn:{self.name}:{self.num_done}"
            self._messages.append({"role": "user", "content": f"{said} {turn}"})
            num_words = int(self.rng.integers(5, 40))
            while not await self._asked(http, num_words):
                await anyio.sleep(float(self.rng.uniform(0.1, 0.5)))
            self.num_done += 1
            await anyio.sleep(float(self.rng.choice([0.0, 0.1, 1.0]) * self.pause_s))

    @property
    def _session_id(self) -> str:
        return f"{self.name}-{self.num_done // TURNS_A_CONVERSATION}"

    async def _asked(self, http: httpx2.AsyncClient, num_words: int) -> bool:
        streams = bool(self.rng.random() < 0.8)
        url = self.gateways[int(self.rng.integers(len(self.gateways)))]
        path, body = self._body(num_words, streams=streams)
        try:
            with anyio.fail_after(TURN_S):
                answer = await http.post(f"{url}{path}", json=body)
        except httpx2.HTTPError as error:
            self.ends[type(error).__name__] += 1
            return False
        except TimeoutError:
            self.problems.append(f"{self.name}: no answer within {TURN_S:g} s")
            return False
        self.ends[str(answer.status_code)] += 1
        if answer.status_code in AGAIN:
            return False
        if answer.status_code != 200:
            self.problems.append(f"{self.name}: status {answer.status_code}: {answer.text[:300]}")
            self._previous = None
            return False
        read = self._response if self.speaks_responses else self._completion
        return self._took(read(answer.content, streams=streams), num_words)

    def _body(self, num_words: int, *, streams: bool) -> tuple[str, dict[str, Any]]:
        common = {"model": self.model, "stream": streams, "ignore_eos": True}
        if not self.speaks_responses:
            more: dict[str, Any] = {"messages": self._messages, "max_tokens": num_words}
            return "/v1/chat/completions", {**common, **more, "session_id": self._session_id}
        more = {"input": self._messages, "max_output_tokens": num_words}
        if self._previous is not None:
            more |= {"input": self._messages[-1:], "previous_response_id": self._previous}
        else:
            more["session_id"] = self._session_id
        return "/v1/responses", {**common, **more}

    def _took(self, words: str | None, num_words: int) -> bool:
        """Take a whole answer in, None for one that broke off."""
        if words is None:
            self.ends["broke off"] += 1
            return False
        wanted = " ".join(f"w{index}" for index in range(num_words))
        if self.checks_words and words != wanted:
            self.problems.append(f"{self.name}: {words!r} instead of {wanted!r}")
        self._messages.append({"role": "assistant", "content": words})
        return True

    def _completion(self, data: bytes, *, streams: bool) -> str | None:
        if not streams:
            return str(json.loads(data)["choices"][0]["message"]["content"])
        words, is_finished = "", False
        for chunk in _events(data):
            if "error" in chunk:
                return None
            for choice in chunk["choices"]:
                words += choice["delta"].get("content") or ""
                is_finished = is_finished or choice["finish_reason"] is not None
        if not (is_finished and data.endswith(b"data: [DONE]\n\n")):
            self.problems.append(f"{self.name}: a stream without an end: {data[-200:]!r}")
        return words

    def _response(self, data: bytes, *, streams: bool) -> str | None:
        if not streams:
            response = json.loads(data)
        else:
            events = _events(data)
            kind = events[-1]["type"] if events else "nothing"
            if kind in ("error", "response.failed"):
                return None
            if kind not in ("response.completed", "response.incomplete"):
                self.problems.append(f"{self.name}: a stream without an end: {data[-200:]!r}")
                return None
            response = events[-1]["response"]
        self._previous = str(response["id"])
        texts = [item["content"][0]["text"] for item in response["output"] if item.get("content")]
        return "".join(texts)


def _events(data: bytes) -> list[dict[str, Any]]:
    parts = [event.partition(b"data: ") for event in data.split(b"\n\n")]
    return [json.loads(one) for _, is_data, one in parts if is_data and one != b"[DONE]"]
