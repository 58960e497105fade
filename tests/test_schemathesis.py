"""The document of the endpoint is true, as Schemathesis finds it out, of both gateways."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

import anyio
import pytest
import uvicorn

from agent_runtime.cli.rack_server import endpoint_config
from tests.hostile_gateways import GATEWAYS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("PANJIU_SCHEMATHESIS" not in os.environ, reason="make test-schemathesis"),
]

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
MAX_S = 900.0
"""By then it hangs, however busy the machine is."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("kind", sorted(GATEWAYS))
async def test_the_document_is_true(kind: str, tmp_path: Path) -> None:
    async with GATEWAYS[kind]() as gateway:
        server = uvicorn.Server(endpoint_config(gateway.app, grace_s=1))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                # An engine takes what it likes: what is against the document is its to refuse.
                unchecked = ["positive_data_acceptance"]
                unchecked += ["negative_data_rejection"] * (kind == "engines")
                # Not checked is that everything the document allows is taken: which fields go
                # together, what a session's id may be and which schemas can be followed is more
                # than a JSON schema can say.
                command = [
                    str(SCHEMATHESIS), "run", f"{url}/openapi.json",
                    "--phases", "coverage,fuzzing,stateful",
                    "--exclude-checks", ",".join(unchecked),
                    "--exclude-path", "/view/stream",  # it ends when the client does
                    "--max-examples", "10", "--seed", "1", "--request-timeout", "60",
                ]  # fmt: skip
                with anyio.fail_after(MAX_S):
                    done = await anyio.run_process(command, check=False, cwd=tmp_path)
                server.should_exit = True
        printed = done.stdout.decode("utf-8", "replace")
        assert done.returncode == 0, printed[-6000:]
        tested = re.search(r"Tested: (\d+)", printed)
        assert tested is not None
        assert int(tested[1]) >= 20
        gateway.check()
