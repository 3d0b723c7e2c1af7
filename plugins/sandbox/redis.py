"""A Redis server on loopback, with its data in one directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pvcd_plugins.sandbox import passwords
from pvcd_plugins.sandbox.service import Service


def redis(directory: Path, port: int, password: str) -> Service:
    """Return the server that keeps its data in `directory` and listens on 127.0.0.1:`port`; clients need `password`."""
    config = directory / "redis.conf"

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        passwords.write(config, _config(directory, port, password))

    async def ready() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"AUTH {password}\r\nPING\r\n".encode())
            # Redis answers -LOADING while it still reads its data.
            return (await reader.readline(), await reader.readline()) == (b"+OK\r\n", b"+PONG\r\n")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return Service(name="redis", argv=("redis-server", str(config)), ready=ready, prepare=prepare)


def url(port: int, password: str) -> str:
    """Return the URL of the server for its clients."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _config(directory: Path, port: int, password: str) -> str:
    return f"""\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
daemonize no
appendonly yes
save ""
"""
