"""Several API processes on one port, between which the kernel shares out the connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

log = logging.getLogger(__name__)
WRONG_SETTINGS = 2
FIRST_PAUSE, LAST_PAUSE = 0.2, 10.0
GOOD_RUN = 30.0


class Workers:
    """Keeps a number of `pvcd api` processes running; they end with this one, whatever ends it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def run(self) -> int:
        """Run them until SIGTERM or SIGINT, and pass SIGHUP on. The exit code: 0, or 2 where the settings are wrong."""
        loop = asyncio.get_running_loop()
        keepers = [asyncio.ensure_future(self._keep(number)) for number in range(self._count)]
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

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it ends."""
        pause = FIRST_PAUSE
        while True:
            begun = asyncio.get_running_loop().time()
            code = await self._run_one(number)
            if code == WRONG_SETTINGS:
                raise _WrongSettingsError
            pause = FIRST_PAUSE if asyncio.get_running_loop().time() - begun > GOOD_RUN else min(2 * pause, LAST_PAUSE)
            log.warning("API worker %d ended with %d and is started again in %g s", number, code, pause)
            await asyncio.sleep(pause)

    async def _run_one(self, number: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "--"),
            *(sys.executable, "-m", "pvcd", "api", "--shared-port"),
        )
        self._processes[number] = process
        try:
            return await process.wait()
        finally:
            del self._processes[number]
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


class _WrongSettingsError(Exception):
    """A worker has said what is wrong with the settings or plugins."""
