"""A Redis server on loopback, with its data in one directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pvcd_plugins.sandbox.service import Service


def redis(directory: Path, port: int) -> Service:
    """Return the server that keeps its data in `directory` and listens on 127.0.0.1:`port`."""
    config = directory / "redis.conf"

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        config.write_text(_config(directory, port))

    async def ready() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"PING\r\n")
            # Redis answers -LOADING while it still reads its data.
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return Service(name="redis", argv=("redis-server", str(config)), ready=ready, prepare=prepare)


def _config(directory: Path, port: int) -> str:
    return f"""\
bind 127.0.0.1
port {port}
dir "{directory}"
daemonize no
appendonly yes
save ""
"""
