"""Runs dnsmasq: processes that are kept running, read their files anew when told to, and end with this one.

They run as nobody with three capabilities, which they get from `setpriv` and not by themselves: a process that changes
its user would survive the end of its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pvcd import Failed, PvcdError, programs

log = logging.getLogger(__name__)
START_LIMIT = 10.0
STOP_LIMIT = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
CALM = 60.0
"""A process that ran for so long is started again as if it had never failed."""
TAIL = 2
"""Lines of what an ended process wrote last that stand in the sentence about it."""
LINES, WINDOW = 30, 60.0
"""How many lines of one process are logged in so many seconds; guests can make it write."""

BASE = ("keep-in-foreground", "user=root", "group=root", "pid-file=", "log-facility=-", "no-hosts", "bind-dynamic")
"""The lines that every configuration begins with. The user counts only where it is root that runs it, and stays it."""
_CAPABILITIES = "-all,+net_admin,+net_raw,+net_bind_service"
_PREFIX = re.compile(r"^dnsmasq(?:-\w+)?(?:\[\d+\])?: ")
_STARTED = "started, version"
_ROUTINE = (
    *(_STARTED, "compile time options", "DHCP, ", "DHCPv6", "IPv6 router", "router advertisement", "using ", "read "),
    *("reading ", "cleared cache", "inotify: ", "warning: no upstream", "exiting on receipt"),
)
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.+-]+)+")


@dataclass(frozen=True)
class Account:
    """Whom a process runs as."""

    uid: int
    gid: int


def account(*paths: Path) -> Account | None:
    """Nobody's; None stands for root, where nobody may not reach one of the paths."""
    if all(each.stat().st_mode & 0o001 for path in paths for each in (path, *path.parents)):
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_uid, nobody.pw_gid)
    log.warning("dnsmasq runs as root, since nobody may not reach %s", " and ".join(map(str, paths)))
    return None


def prepare(directory: Path) -> Path:
    """Make a directory for configurations; its full path, which can stand in one as it is."""
    directory = directory.resolve()
    if not _PLAIN_PATH.fullmatch(str(directory)):
        raise Failed(
            f"The directory {directory} cannot be used for dnsmasq: its path may hold A-Z a-z 0-9 _ . + - only."
        )
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.chmod(0o755)
    except OSError as error:
        raise Failed(f"The directory {directory} cannot be made: {error.strerror}.") from error
    return directory


def write(path: Path, text: str, mode: int = 0o644, owner: Account | None = None) -> None:
    """Write a file that is seen whole or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.touch(mode=mode & 0o700)
    draft.write_text(text)
    draft.chmod(mode)
    if owner is not None:
        os.chown(draft, owner.uid, owner.gid)
    draft.replace(path)


async def _nothing() -> None:
    """What is to be done before most are started."""


class Server:
    """One dnsmasq, for which `trouble` says why it does not serve, as long as it does not.

    `before` is called each time before it is started, and may raise a `PvcdError` why it cannot be.
    """

    def __init__(
        self,
        name: str,
        configuration: Path,
        account: Account | None,
        before: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self.trouble: str | None = f"{name} is still starting."
        self._name = name
        self._argv = _argv(configuration, account)
        self._before = before
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._stale = False
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._window = 0.0, 0

    async def start(self) -> None:
        """Keep it running from now on; returns when it serves, or when it is known why not."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self._name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_LIMIT):
                await self._settled.wait()

    def reload(self) -> None:
        """Let it read again what it reads anew: the files of hosts and of servers, not its configuration."""
        if self._process is None or self.trouble is not None:
            self._stale = True  # before it is ready the signal would end it
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """End it, after it has told its script everything."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _keep(self) -> None:
        """Start it again whenever it ends, with growing pauses."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        while True:
            begun = loop.time()
            how = await self._run()
            pause = FIRST_PAUSE if loop.time() - begun > CALM else pause
            self.trouble = f"{self._name} {how}, and is started again soon."
            self._settled.set()
            log.warning("%s %s; it is started again in %g s", self._name, how, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run(self) -> str:
        """Run it once; how it ended."""
        self._tail.clear()
        try:
            await self._before()
            env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
            process = self._process = await programs.start(
                self._argv, env=env, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
            )
        except PvcdError as error:
            return f"cannot be started: {error.sentence.rstrip('.')}"
        reader = asyncio.create_task(self._read(process))
        try:
            status = await process.wait()
            # What it wrote last may be read a little later; its script may hold the pipe for longer.
            await asyncio.wait([reader], timeout=1)
        finally:
            self._process = None
            await _end(process)
            reader.cancel()
            await asyncio.wait([reader])
        return f"{_ending(status)}{''.join(f': {line}' for line in self._tail)}"

    async def _read(self, process: Process) -> None:
        """Log what it writes, and learn from it that it serves."""
        assert process.stderr is not None  # noqa: S101
        async for raw in process.stderr:
            text = raw.decode(errors="replace").strip()
            line = "".join(each if each.isprintable() else "?" for each in _PREFIX.sub("", text))
            if not line:
                continue
            self._tail.append(line)
            self._log(line)
            if line.startswith(_STARTED) and line != text:
                self.trouble = None
                self._settled.set()
                if self._stale:
                    self._stale = False
                    process.send_signal(signal.SIGHUP)

    def _log(self, line: str) -> None:
        if line.startswith(_ROUTINE):
            log.debug("%s: %s", self._name, line)
            return
        now = asyncio.get_running_loop().time()
        begun, count = self._window
        if now - begun > WINDOW:
            if count > LINES:
                log.info("%s: %d more lines were not logged", self._name, count - LINES)
            begun, count = now, 0
        self._window = begun, count + 1
        if count < LINES:
            log.info("%s: %s", self._name, line)


def _argv(configuration: Path, account: Account | None) -> list[str]:
    """From the start as the user that it stays, with what serving takes and no way to more."""
    dnsmasq = ["--", "dnsmasq", f"--conf-file={configuration}"]
    setpriv = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    if account is None:
        return [*setpriv, f"--bounding-set={_CAPABILITIES},+setgid", f"--inh-caps={_CAPABILITIES}", *dnsmasq]
    sets = [f"--{each}={_CAPABILITIES}" for each in ("bounding-set", "inh-caps", "ambient-caps")]
    return [*setpriv, f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", *sets, *dnsmasq]


async def _end(process: Process) -> None:
    """Ask it to end, and kill all of its group when its time is over."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_LIMIT):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _ending(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
