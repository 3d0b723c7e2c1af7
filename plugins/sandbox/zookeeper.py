"""A single ZooKeeper server on loopback, with its data in one directory.

It answers only clients that have named themselves. ZooKeeper checks no password by itself: the ACLs of documents do,
which name the one client that may read and change them, and pvcd closes its root with one, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from pvcd_plugins.sandbox.service import Service

JAR = "/usr/share/java/zookeeper.jar"
LOG_JAR = "/usr/share/java/slf4j-simple.jar"


def zookeeper(directory: Path, port: int, *, durable: bool = False) -> Service:
    """Return the server that keeps its data in `directory` and listens on 127.0.0.1:`port`."""
    config = directory / "zoo.cfg"

    def prepare() -> None:
        (directory / "data").mkdir(parents=True, exist_ok=True)
        config.write_text(_config(directory / "data", port))

    async def ready() -> bool:
        # `ruok` is answered before the server serves requests; `srvr` names a mode only when it does.
        return b"Mode:" in await ask(port, b"srvr")

    return Service(name="zookeeper", argv=_argv(directory, config, durable), ready=ready, prepare=prepare)


async def ask(port: int, request: bytes) -> bytes:
    """Return all that a server on loopback answers to a request until it closes, or for one second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while chunk := await reader.read(4096):
                    answer += chunk
        return answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _argv(directory: Path, config: Path, durable: bool) -> tuple[str, ...]:
    return (
        "java",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",  # they would stay in /tmp after kill -9
        f"-XX:ErrorFile={directory / 'java-error.log'}",
        "-Dzookeeper.admin.enableServer=false",
        f"-Dzookeeper.forceSync={'yes' if durable else 'no'}",
        "-Dzookeeper.preAllocSize=4096",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
        "-cp",
        f"{JAR}:{LOG_JAR}",
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(config),
    )


def _config(data: Path, port: int) -> str:
    settings = {
        "tickTime": 500,
        "dataDir": data,
        "clientPort": port,
        "clientPortAddress": "127.0.0.1",
        "admin.enableServer": "false",
        "maxClientCnxns": 0,
        "4lw.commands.whitelist": "srvr",
        "enforce.auth.enabled": "true",
        "enforce.auth.schemes": "digest",
        "minSessionTimeout": 1000,
        "maxSessionTimeout": 60000,
        "autopurge.snapRetainCount": 3,
        "autopurge.purgeInterval": 1,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())
