"""vLLM's ``AsyncLLM`` in this process, behind vLLM's own API: no port, no server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.errors import ConfigError


@asynccontextmanager
async def open_in_process_engine(arguments: Sequence[str]) -> AsyncIterator[AsgiApp]:
    """Start an engine and open its API; leaving ends the engine.

    The engine's core still is a process of its own, as always in vLLM, which it starts: a program
    that calls this needs the usual ``if __name__ == "__main__"``.

    Args:
        arguments: As of ``vllm serve``, the model first.

    Raises:
        ConfigError: vLLM is not installed, or not the one whose parts are put together here;
            arguments that it does not take.
    """
    try:
        from vllm.entrypoints.launchers.api_server.app_state import (  # noqa: PLC0415 - an extra
            init_app_state,
        )
        from vllm.entrypoints.launchers.api_server.entry import (  # noqa: PLC0415
            build_async_engine_client,
        )
        from vllm.entrypoints.launchers.app import build_app  # noqa: PLC0415
        from vllm.entrypoints.launchers.cli_args import (  # noqa: PLC0415
            make_arg_parser,
            validate_parsed_serve_args,
        )
        from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "an engine in this process needs vLLM 0.32 or newer, which can't be imported "
            f"({error}): pip install 'panjiu[vllm]', or start it by itself and name it by --engine"
        ) from error
    parser = make_arg_parser(FlexibleArgumentParser(exit_on_error=False))
    try:
        args = parser.parse_args(list(arguments))
        validate_parsed_serve_args(args)
    except (SystemExit, Exception) as error:  # argparse leaves the program where it can
        raise ConfigError(
            f"--in-process: vLLM does not take {' '.join(arguments)!r}: {error}"
        ) from error
    async with build_async_engine_client(args) as client:
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        yield app
