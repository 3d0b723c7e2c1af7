"""Some servers of a sandbox, which run beside the tests and end with them.

`python -m tests.sandboxes DIRECTORY PORTS SERVER...` is their supervisor; PORTS is a JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pvcd.programs import supervise
from pvcd_plugins.sandbox import state
from pvcd_plugins.sandbox.cluster import Sandbox

ROOT = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 120.0, 120.0


def launch(directory: Path, *module: str) -> subprocess.Popen[bytes]:
    """Start the supervisor of a sandbox, a Python module with its arguments, and wait until it is ready.

    It stops when the thread that calls this ends, which must be the main one, also when the tests are killed.
    """
    state.make(directory)
    command = supervise.bound([sys.executable, "-m", *module], number="TERM")
    file, end = directory / "log" / "sandbox.log", time.monotonic() + START_SECONDS
    with file.open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    while (known := state.read(directory)) is None or not (known.ready and known.supervisor.pid == process.pid):
        if process.poll() is not None or time.monotonic() > end:
            process.terminate()
            raise AssertionError(file.read_text())
        time.sleep(0.05)
    return process


@contextlib.contextmanager
def running(directory: Path, *servers: str, ports: Mapping[str, int] | None = None) -> Iterator[Sandbox]:
    """Run servers of a sandbox; return the sandbox, whose ports and passwords are theirs.

    A process of its own: in that of the tests, the supervisor would delay other tests, and reach out while they run.
    """
    process = launch(directory, "tests.sandboxes", str(directory), json.dumps(ports or {}), *servers)
    try:
        known = state.read(directory)
        assert known is not None
        sandbox = Sandbox(directory, only=servers)
        sandbox.ports = known.ports
        yield sandbox
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, (directory / "log" / "sandbox.log").read_text()


def main(directory: str, ports: str, *servers: str) -> None:
    """Run the servers until a signal stops them."""
    sandbox = Sandbox(Path(directory), requested_ports=json.loads(ports), only=servers)
    asyncio.run(sandbox.run_until_stopped())


if __name__ == "__main__":
    main(*sys.argv[1:])
