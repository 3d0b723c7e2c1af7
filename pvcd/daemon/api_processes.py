"""Several API processes on one port, between which the kernel distributes the connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from functools import partial

from pvcd.programs import start
from pvcd.programs.supervise import bound, ending, keep, stop

log = logging.getLogger(__name__)
WRONG_SETTINGS = 2
STOP_SECONDS = 60.0


class ApiProcesses:
    """Keeps a number of `pvcd api` processes running; they end with this one, however it ends."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Run them until SIGTERM or SIGINT, and pass SIGHUP on; return 0, or 2 where the settings are wrong."""
        loop = asyncio.get_running_loop()
        keepers = [
            asyncio.ensure_future(keep(partial(self._run_one, number), partial(_warn, number)))
            for number in range(self._count)
        ]
        everything = asyncio.gather(*keepers)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, everything.cancel)
        loop.add_signal_handler(signal.SIGHUP, self._send, signal.SIGHUP)
        try:
            await everything
        except asyncio.CancelledError:
            return 0
        except _WrongSettingsError:
            return WRONG_SETTINGS
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        return 0

    async def _run_one(self, number: int) -> str:
        process = await start(bound([sys.executable, "-m", "pvcd", "api", "--shared-port"], number="TERM"))
        self._processes[number] = process
        try:
            if await process.wait() == WRONG_SETTINGS:
                raise _WrongSettingsError
        finally:
            del self._processes[number]
            await stop(process, STOP_SECONDS)
        return ending(process.returncode)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def _warn(number: int, how: str, pause: float) -> None:
    log.warning("API process %d %s; restarting it in %g s", number, how, pause)


class _WrongSettingsError(Exception):
    """An API process has found the settings or plugins wrong, and said so."""
