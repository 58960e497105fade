"""The command as users and scripts meet it: what it prints, writes and returns."""

import json
import signal
import socket
from pathlib import Path

import openai
import pytest

from agent_runtime.cli.main import main
from agent_runtime.cli.rack_server import listen
from tests.served_command import served_command

SMALL = ["simulate", "--limit", "3", "--model", "qwen3-8b", "--replicas", "2", "--max-gap-s", "1"]


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = main(args)
    except SystemExit as exit_:  # argparse's way
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_on_stdout_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *SMALL, "--json", "-")
    assert code == 0
    runs = json.loads(out)
    assert [summary["band"] for summary in runs] == ["low", "base", "high"]
    assert "sessions done" in err


def test_one_band_is_one_object_with_every_documented_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "out.json"
    code, out, _ = run(capsys, *SMALL, "--band", "base", "--json", str(target))
    assert code == 0
    assert "3/3" in out
    summary = json.loads(target.read_text())
    documented = (
        "policy model rack band seed ttft_boundary sessions turns simulated_s wall_s "
        "turns_per_wall_s jct_s ttft_s tpot_s slowdown prefix_hit_ratio recomputed_tokens "
        "preemptions pulled_bytes host_loaded_tokens hbm_used_ratio"
    )
    assert list(summary) == documented.split()
    assert summary["sessions"] == {"total": 3, "completed": 3, "failed": 0}
    assert list(summary["ttft_s"]) == ["mean", "p50", "p95", "p99", "max"]
    assert list(summary["slowdown"]) == ["mean", "p99", "max"]
    assert list(summary["hbm_used_ratio"]) == ["mean", "max"]


def test_agentx_replays_as_many_sessions_as_are_asked_for_and_no_timed_requests(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    replay = ["--replay", "agentx", "--concurrency", "5", "--band", "base"]
    code, out, err = run(capsys, *SMALL, *replay, "--json", "-")
    assert code == 0
    assert json.loads(out)["sessions"]["completed"] == 5
    assert "5 live trajectories" in " ".join(err.split())
    batch = tmp_path / "batch.jsonl"
    body = {"messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    batch.write_text(json.dumps(line))
    code, _, err = run(capsys, *SMALL, *replay, "--sessions", str(batch))
    assert code == 2
    assert "come at set times" in " ".join(err.split())


def test_the_same_seed_writes_the_same_bytes_but_for_the_wall_clock(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = []
    for name in ("one", "two"):
        run(capsys, *SMALL, "--seed", "5", "--json", str(tmp_path / name))
        lines = (tmp_path / name).read_text().splitlines()
        texts.append([line for line in lines if "wall_s" not in line])
    assert texts[0] == texts[1]


def test_the_page_is_written_and_its_path_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    code, out, _ = run(capsys, *SMALL, "--html", str(target))
    assert code == 0
    assert f"report: {target}" in out
    assert target.read_text().startswith("<!DOCTYPE html>")


USAGE = [
    (["--model", "gpt-9"], "unknown model 'gpt-9'; known: deepseek-v3, "),
    (["--rack", "nvl72"], "unknown rack 'nvl72'; known: h100-node8, "),
    (["--policy", "magic"], "unknown policy 'magic'; known: clairvoyant, "),
    (["--band", "best"], "invalid choice: 'best'"),
    (["--limit", "0"], "--limit: expected a whole number >= 1, got '0'"),
    (["--max-gap-s", "nan"], "--max-gap-s: expected a number >= 0, got 'nan'"),
    (["--replicas", "500"], "500 replicas x TP4 need 2000 chips"),
    (["--tp", "3"], "TP3 is not possible"),
    (["--precision", "fp3"], "invalid choice: 'fp3'"),
    (["--json", "/no/such/folder/out.json"], "--json /no/such/folder/out.json: not a file"),
]


@pytest.mark.parametrize(("args", "message"), USAGE)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_right(
    capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    code, out, err = run(capsys, "simulate", *args)
    assert (code, out) == (2, "")
    assert message in err


def test_a_model_that_does_not_fit_exits_with_1_and_says_what_would(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, "simulate", "--model", "qwen3-coder-480b-a35b", "--tp", "1")
    assert code == 1
    assert "GB a chip are missing" in err
    assert "fp8 at TP4" in err


def test_a_broken_trace_exits_with_1_and_names_the_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"id": "a", "block_size": 64, "requests": [{"type": "n", "t": 0}]}\n')
    code, _, err = run(capsys, "simulate", "--sessions", str(trace))
    assert code == 1
    assert err == f"panjiu: {trace}, line 1: requests[0].in: Field required\n"
    assert run(capsys, "simulate", "--sessions", "nowhere.gz")[0] == 1


def test_when_no_session_completes_the_limit_is_printed_and_the_exit_code_is_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    call = {"type": "n", "t": 0, "in": 64 * 40_000, "out": 5, "hash_runs": [[1, 40_000]]}
    trace.write_text(json.dumps({"id": "a", "block_size": 64, "requests": [call]}))
    code, out, _ = run(
        capsys, "simulate", "--sessions", str(trace), "--model", "qwen3-8b", "--band", "base"
    )
    assert code == 1
    assert "0/1" in out
    assert "a replica holds 774,208" in " ".join(out.split())


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["simulate"], ["serve"]):
        code, out, _ = run(capsys, *command, "--help")
        assert code == 0
        assert "panjiu simulate" in out or "panjiu serve" in out
    assert run(capsys)[0] == 2


def test_a_port_that_is_taken_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "serve", "--host", "203.0.113.1")
    assert code == 2
    assert "can't listen on 203.0.113.1:8000" in err


def test_no_token_waits_for_the_one_before_to_be_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_broken_script_exits_with_1_and_names_rule_and_field(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "replies.toml"
    script.write_text("[[reply]]\ntext = 'a'\nturn = 'first'\n")
    code, _, err = run(capsys, "serve", "--replies", str(script))
    assert code == 1
    assert err.startswith(f"panjiu: {script}, reply 1: turn: ")
    assert run(capsys, "serve", "--tool-calls", "0.5")[0] == 2


def test_serve_answers_on_the_port_it_prints_and_stops_on_ctrl_c() -> None:
    with served_command("--model", "qwen3-8b", "--replicas", "2", "--speed", "100") as served:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="-", max_retries=0) as client:
            answer = client.chat.completions.create(
                model="qwen3-8b", messages=[{"role": "user", "content": "Hello"}], max_tokens=3
            )
        assert answer.choices[0].message.content
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(timeout=20) == 0
        assert served.process.stderr is not None
        assert "stopped" in served.process.stderr.read()
