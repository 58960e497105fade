r"""Users who talk, for locust: each is a session whose conversation grows by the server's replies.

    panjiu serve --model qwen3-8b
    locust -f examples/load_tests/locustfile.py --host http://127.0.0.1:8000 --headless \
        --users 16 --spawn-rate 2 --run-time 1m --stop-timeout 30

The row ``POST`` is of whole answers, the row ``first token`` of their beginnings. Without
``--stop-timeout`` the turns under way are broken off when the time is over.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any

import requests
from locust import HttpUser, between, task

MODEL = os.environ.get("MODEL", "qwen3-8b")
MAX_TURNS = 12


class Agent(HttpUser):  # type: ignore[misc] # locust is not typed
    """A conversation of a dozen turns, then another one."""

    wait_time = between(0.2, 3)

    def on_start(self) -> None:
        """Begin a conversation."""
        self.session_id = f"locust-{uuid.uuid4()}"
        self.messages: list[dict[str, Any]] = []

    @task  # type: ignore[untyped-decorator]
    def turn(self) -> None:
        """Ask, and read the reply as it comes."""
        if len(self.messages) >= 2 * MAX_TURNS:
            self.on_start()
        self.messages.append({"role": "user", "content": f"{self.session_id}: " + "step " * 400})
        body = {"model": MODEL, "messages": self.messages, "stream": True, "max_tokens": 100}
        began_s = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            json=body,
            headers={"X-Session-ID": self.session_id},
            stream=True,
            catch_response=True,
        ) as response:
            reply = self._reply(response, began_s) if response.ok else ""
            # Of a stream, locust's own time ends with the headers.
            response.request_meta["response_time"] = 1000 * (time.perf_counter() - began_s)
            if response.ok and not reply:
                response.failure("a reply without a word, or one that broke off")
        if reply:
            self.messages.append({"role": "assistant", "content": reply})
        else:
            self.on_start()

    def _reply(self, response: requests.Response, began_s: float) -> str:
        """Return what was said, nothing if it broke off; tell locust when it began."""
        words: list[str] = []
        for line in response.iter_lines():
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                return ""
            choices = chunk.get("choices")
            text = choices[0]["delta"].get("content") if choices else None
            if not text:
                continue
            if not words:
                self.environment.events.request.fire(
                    request_type="SSE",
                    name="first token",
                    response_time=1000 * (time.perf_counter() - began_s),
                    response_length=0,
                    exception=None,
                    context={},
                )
            words.append(text)
        return "".join(words)
