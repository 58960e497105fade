"""``panjiu top`` as people start it: once, for machines, and in a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse

from agent_runtime.cli.main import main
from tests.served_command import ROOT, served_command
from tests.viewed_rack import ViewService, busy_service, frame, layout, served_beside

COMMAND = [sys.executable, "-m", "agent_runtime.cli.main", "top"]
# Its own terminal's foreground process, so that Ctrl-C and Ctrl-Z reach it as signals.
IN_TERMINAL = """
import fcntl, sys, termios
from agent_runtime.cli.main import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main(sys.argv[1:]))
"""
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
PATIENCE_S = 30
LOCAL_MODES = 3


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["top", *args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANJIU_DASHBOARD_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("options", [["--once"], []])
def test_one_picture_where_nobody_looks(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with served_beside(busy_service(128).app) as url:
        code, out, _ = run(capsys, url, *options)
    assert code == 0
    assert "128 replicas by number" in out
    assert all(re.search(rf"(^| ){number} ", out, re.MULTILINE) for number in range(128))
    assert "turns/s" in out
    assert "\x1b" not in out
    assert "quit" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_rack_that_tells_one_frame_is_shown_without_rates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.cli.top.SECOND_FRAME_S", 0.1)
    with served_beside(ViewService([layout(2), frame()]).app) as url:
        code, out, _ = run(capsys, url, "--once")
    assert (code, "nobody waits" in out) == (0, True)


def test_a_rack_that_is_served_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    body = {
        "messages": [{"role": "user", "content": "Plan the day."}],
        "max_tokens": 8,
        "session_id": "agent-1",
    }
    with served_command("--model", "qwen3-8b", "--replicas", "3", "--speed", "20") as one:
        httpx2.post(f"{one.url}/v1/chat/completions", json=body, timeout=30).raise_for_status()
        code, out, _ = run(capsys, one.url, "--once")
    assert code == 0
    assert "Qwen3-8B on Alibaba Panjiu AL128" in out
    assert "3 replicas by number" in out
    assert "1 sessions" in out
    assert re.search(r"turns +1 ", out)
    assert re.search(r"agent-1.* \u2192\d", out)


def test_the_key_is_an_option_or_a_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [layout(2), frame(0.0), frame(1.0)]
    service = ViewService(told, told)
    with served_beside(service.app) as url:
        assert run(capsys, url, "--once", "--key", "first")[0] == 0
        monkeypatch.setenv("PANJIU_DASHBOARD_KEY", "second")
        assert run(capsys, url, "--once")[0] == 0
    assert [one["authorization"] for one in service.headers] == ["Bearer first", "Bearer second"]


def test_what_is_wrong_has_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    service = ViewService([layout(2), None])
    with served_beside(service.app) as url:
        code, out, err = run(capsys, url)
        assert (code, out) == (1, "")
        assert "ended the stream before it told how the rack is" in err
        service.refusal = JSONResponse({"error": {"message": "no key"}}, 401)
        code, _, err = run(capsys, url)
        assert (code, "PANJIU_DASHBOARD_KEY" in err) == (2, True)
        service.refusal = JSONResponse({}, 404)
        code, _, err = run(capsys, url, "--json")
        assert (code, "--no-dashboard" in err) == (1, True)
    code, _, err = run(capsys, url)
    assert (code, "no server at" in err) == (1, True)
    code, _, err = run(capsys, url, "--json", "--interval", "2")
    assert (code, "--interval: not with --json" in err) == (2, True)
    code, _, err = run(capsys, "http://")
    assert (code, "expected one such as" in err) == (2, True)


def test_messages_that_can_not_be_read_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    with served_beside(ViewService([layout(3), frame()]).app) as url:
        code, _, err = run(capsys, url)
    assert (code, "replicas: 2, the layout has 3" in err) == (1, True)


def test_machines_get_every_message_and_connections_are_made_again() -> None:
    told = [layout(2), frame(1.0), None, layout(2), frame(2.0), None]
    with served_beside(ViewService(told[:3], told[3:]).app) as url:
        command = [*COMMAND, url, "--json"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [json.loads(process.stdout.readline()) for _ in range(4)]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE_S) == 0
            errors = process.stderr.read()
    assert lines == [one for one in told if one is not None]
    assert "ended the stream; trying again" in errors


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    with served_beside(busy_service().app) as url:
        command = [*COMMAND, url, "--json"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(timeout=PATIENCE_S) == 0
            assert process.stderr.read() == ""


class Terminal:
    """A terminal with ``panjiu top`` in it."""

    def __init__(self, url: str, directory: Path, rows: int, columns: int) -> None:
        self.ours, self._theirs = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._theirs)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, "top", url, "--interval", "0.1"],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            start_new_session=True,
            cwd=directory,
            env=environment,
        )

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read_until(self, wanted: str) -> str:
        """Return what it wrote, up to something; without colours."""
        text = ""
        while wanted not in text:
            ready, _, _ = select.select([self.ours], [], [], PATIENCE_S)
            assert ready, f"{wanted!r} did not come: {text[-3000:]!r}"
            text += os.read(self.ours, 1 << 16).decode("utf-8", "replace")
            text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        return text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)


@contextmanager
def terminal(url: str, directory: Path, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    one = Terminal(url, directory, rows, columns)
    try:
        yield one
    finally:
        one.close()


def test_keys_in_a_terminal(tmp_path: Path) -> None:
    with served_beside(busy_service().app) as url, terminal(url, tmp_path) as one:
        assert ENTERED in one.read_until("32 replicas by number")
        modes = one.modes()
        assert not modes[LOCAL_MODES] & (termios.ECHO | termios.ICANON)
        one.type("s")
        one.read_until("32 replicas by queue")
        one.type(" ")
        one.read_until("frozen")
        one.type(" ")
        one.resize(40, 160)
        one.read_until("\u2193")  # lists stand beside each other
        one.type("q")
        one.read_until(LEFT)
        assert one.process.wait(PATIENCE_S) == 0
        assert one.modes() == one.before


@pytest.mark.parametrize("how", ["\x03", signal.SIGTERM])
def test_ctrl_c_gives_the_terminal_back(how: str | signal.Signals, tmp_path: Path) -> None:
    with served_beside(busy_service().app) as url, terminal(url, tmp_path) as one:
        one.read_until("latest decisions")
        if isinstance(how, str):
            one.type(how)
        else:
            one.process.send_signal(how)
        one.read_until(LEFT)
        assert one.process.wait(PATIENCE_S) == 0
        assert one.modes() == one.before


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(tmp_path: Path) -> None:
    with served_beside(busy_service().app) as url, terminal(url, tmp_path) as one:
        one.read_until("latest decisions")
        one.type("\x1a")
        one.read_until(LEFT)
        _, status = os.waitpid(one.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert one.modes() == one.before
        one.process.send_signal(signal.SIGCONT)
        assert ENTERED in one.read_until("latest decisions")
        assert one.modes() != one.before
        one.type("q")
        one.read_until(LEFT)
        assert one.process.wait(PATIENCE_S) == 0


def test_a_server_that_goes_is_waited_for_in_the_terminal(tmp_path: Path) -> None:
    frames = [frame(float(now_s)) for now_s in range(3)]
    service = ViewService([layout(2), *frames, None], [layout(2, policy="mori"), *frames])
    with served_beside(service.app) as url, terminal(url, tmp_path) as one:
        one.read_until("lost, again in")
        one.read_until("mori")
        one.type("q")
        one.read_until(LEFT)
        assert one.process.wait(PATIENCE_S) == 0


def test_a_message_that_can_not_be_read_gives_the_terminal_back(tmp_path: Path) -> None:
    told = [layout(2), *(frame(float(now_s)) for now_s in range(20)), frame(20.0, series=[])]
    service = ViewService(told, pace_s=0.1)
    with served_beside(service.app) as url, terminal(url, tmp_path) as one:
        one.read_until("latest decisions")
        text = one.read_until("the layout has 3")
        assert text.index(LEFT) < text.index("series: 0")
        assert one.process.wait(PATIENCE_S) == 1
        assert one.modes() == one.before


def test_no_server_is_said_on_the_plain_screen(tmp_path: Path) -> None:
    with served_beside(busy_service().app) as url:
        pass
    with terminal(url, tmp_path) as one:
        text = one.read_until("or name another: panjiu top URL")
        assert ENTERED not in text
        assert one.process.wait(PATIENCE_S) == 1
        assert one.modes() == one.before
