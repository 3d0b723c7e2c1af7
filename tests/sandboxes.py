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


@contextlib.contextmanager
def running(directory: Path, *servers: str, ports: Mapping[str, int] | None = None) -> Iterator[Sandbox]:
    """Start servers of a sandbox from the main thread; return the sandbox, whose ports and passwords are theirs.

    A process of its own: in that of the tests, the supervisor would delay other tests, and reach out while they run.
    """
    command = [sys.executable, "-m", "tests.sandboxes", str(directory), json.dumps(ports or {}), *servers]
    state.make(directory)
    file = directory / "log" / "sandbox.log"
    with file.open("ab") as log:
        process = subprocess.Popen(supervise.bound(command, number="TERM"), cwd=ROOT, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_SECONDS
        while (known := state.read(directory)) is None or not (known.ready and known.supervisor.pid == process.pid):
            assert process.poll() is None and time.monotonic() < end, file.read_text()
            time.sleep(0.05)
        sandbox = Sandbox(directory, only=servers)
        sandbox.ports = known.ports
        yield sandbox
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, file.read_text()


def main(directory: str, ports: str, *servers: str) -> None:
    """Run the servers until a signal stops them."""
    sandbox = Sandbox(Path(directory), requested_ports=json.loads(ports), only=servers)
    asyncio.run(sandbox.run_until_stopped())


if __name__ == "__main__":
    main(*sys.argv[1:])
