"""What commands that serve an emulated rack share: listening, and stopping without a hang."""

from __future__ import annotations

import socket

import uvicorn
from typing_extensions import override

from agent_runtime.backends.emulator import EmulatedRack
from agent_runtime.errors import ConfigError


def listen(host: str, port: int, *, port_option: str = "--port") -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address is taken, or none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"can't listen on {host}:{port}: {error}; choose another --host or {port_option}"
        ) from error
    # Connections inherit it. asyncio sets it only on sockets whose protocol is named, which this
    # one's isn't, and without it a token waits until the client acknowledged the one before: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class RackServer(uvicorn.Server):
    """Ends the turns under way before it waits for their connections to close."""

    def __init__(self, config: uvicorn.Config, rack: EmulatedRack) -> None:
        super().__init__(config)
        self._rack = rack

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._rack.stop()
        await super().shutdown(sockets)
