"""Runs dnsmasq: processes that are restarted when they end, reread their files on request, and end with this one.

They run as the user nobody with three capabilities. `setpriv` sets both, because a process that changes its own user
would survive the end of its parent.
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

supervise = programs.supervise

log = logging.getLogger(__name__)
START_SECONDS = 10.0
STOP_SECONDS = 10.0
LONGEST_PAUSE_SECONDS, CALM_SECONDS = 30.0, 60.0
"""The pause before a restart grows up to the first, unless the process ran for the second."""
TAIL_LINES = 2
"""Last lines of an ended process that its sentence quotes."""
LOG_LINES, LOG_SECONDS = 30, 60.0
"""Limit of logged lines per process and period, because guests can make it write."""

BASE = ("keep-in-foreground", "user=root", "group=root", "pid-file=", "log-facility=-", "no-hosts", "bind-dynamic")
"""The first lines of every configuration. The user matters only if root runs it: then it stays root."""
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
    """The user and group of a process."""

    uid: int
    gid: int


def account(*paths: Path) -> Account | None:
    """Return the account of the user nobody, or None for root if that user cannot reach one of the paths."""
    if all(each.stat().st_mode & 0o001 for path in paths for each in (path, *path.parents)):
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_uid, nobody.pw_gid)
    log.warning("dnsmasq runs as root, because the user nobody cannot reach %s", " and ".join(map(str, paths)))
    return None


def prepare(directory: Path) -> Path:
    """Create a directory for configurations. Returns its full path, which needs no quoting in them."""
    directory = directory.resolve()
    if not _PLAIN_PATH.fullmatch(str(directory)):
        raise Failed(
            f"Cannot use directory {str(directory)!r} for dnsmasq: its path may contain only A-Z a-z 0-9 _ . + - /."
        )
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.chmod(0o755)
    except OSError as error:
        raise Failed(f"Cannot create directory {str(directory)!r}: {error.strerror}.") from error
    return directory


def write(path: Path, text: str, mode: int = 0o644, owner: Account | None = None) -> None:
    """Write a file atomically."""

    draft = path.with_name(f".{path.name}")
    draft.touch(mode=mode & 0o700)
    draft.write_text(text)
    draft.chmod(mode)
    if owner is not None:
        os.chown(draft, owner.uid, owner.gid)
    draft.replace(path)


async def _nothing() -> None:
    """The default of `before`."""


class Server:
    """One dnsmasq. `trouble` is the sentence about why it does not serve now, or None.

    `before` is called before each start, and may raise a `PvcdError` to prevent it.
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
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._window = 0.0, 0

    async def start(self) -> None:
        """Start it and keep it running. Returns when it serves, or when `trouble` says why not."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self._name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._settled.wait()

    def reload(self) -> None:
        """Make it reread its files of hosts and servers, but not its configuration."""
        if self._process is None or self.trouble is not None:
            self._stale = True  # the signal would end it before it is ready
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Stop it, after it has reported everything to its script."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _keep(self) -> None:
        """Start it again whenever it ends, with growing pauses."""
        await supervise.keep(self._run, self._ended, longest_seconds=LONGEST_PAUSE_SECONDS, calm_seconds=CALM_SECONDS)

    def _ended(self, how: str, pause: float) -> None:
        self.trouble = f"{self._name} {how}; restarting it soon."
        self._settled.set()
        log.warning("%s %s; restarting it in %g s", self._name, how, pause)

    async def _run(self) -> str:
        """Run it once. Returns how it ended."""
        self._tail.clear()
        try:
            await self._before()
            env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
            process = self._process = await programs.start(
                self._argv, env=env, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
            )
        except PvcdError as error:
            return f"could not be started: {error.sentence.rstrip('.')}"
        reader = asyncio.create_task(self._read(process))
        try:
            status = await process.wait()
            # Its last lines may arrive late; its script may hold the pipe open for longer.
            await asyncio.wait([reader], timeout=1)
        finally:
            self._process = None
            await supervise.stop(process, STOP_SECONDS)
            reader.cancel()
            await asyncio.wait([reader])
        return f"{supervise.ending(status)}{''.join(f': {line}' for line in self._tail)}"

    async def _read(self, process: Process) -> None:
        """Log its output, and notice in it when it serves."""
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
        if now - begun > LOG_SECONDS:
            if count > LOG_LINES:
                log.info("%s: %d more lines were not logged", self._name, count - LOG_LINES)
            begun, count = now, 0
        self._window = begun, count + 1
        if count < LOG_LINES:
            log.info("%s: %s", self._name, line)


def _argv(configuration: Path, account: Account | None) -> list[str]:
    """Return a command line that starts dnsmasq as its final user, with only the capabilities of a server."""

    sets = [f"--{each}={_CAPABILITIES}" for each in ("bounding-set", "inh-caps", "ambient-caps")]
    if account is None:
        options = [f"{sets[0]},+setgid", sets[1]]
    else:
        options = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", *sets]
    return supervise.bound(["dnsmasq", f"--conf-file={configuration}"], "--no-new-privs", *options)
