"""A real Redis for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.contract.conftest import free_ports


def needs_redis() -> None:
    """Skip the test if Redis is not installed, but fail it in CI."""
    if not shutil.which("redis-server"):
        if os.environ.get("CI"):
            pytest.fail("Redis is not installed: apt install redis-server")
        pytest.skip("Redis is not installed: apt install redis-server")


class RedisServer:
    """A Redis server as a child process, which remembers nothing when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it serves."""
        argv = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        with (self._folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(argv, stdout=output, stderr=output)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(RedisError), self.client() as client:
                client.ping()
                return
            assert time.monotonic() < end, "Redis does not serve"
            time.sleep(0.02)

    def client(self) -> Redis:
        return Redis.from_url(self.url, decode_responses=True)

    def pause(self) -> None:
        """Let it hang."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis server during the block."""
    needs_redis()
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
