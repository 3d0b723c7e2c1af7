"""The real installation: `inside.py` as a child process, watched until nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pvcd import PvcdError, TimedOut, programs
from pvcd_plugins.provisioner.installation import InstallFailed, Job, Output, calls, view
from pvcd_plugins.provisioner.installation.document import document
from pvcd_plugins.provisioner.installation.output import Lines

log = logging.getLogger(__name__)
INSIDE = Path(__file__).with_name("inside.py")
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    *("HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"),
    "container=lxc",  # so that debootstrap and systemd's tools do without devices
)
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
"""Variables of this process's environment, in small or capital letters, that a script gets for its downloads."""
END_SECONDS = 20.0
"""Time for the kernel to remove what was killed, file systems included."""
PROGRAM_SECONDS = 10.0


class ChildInstallation:
    """Runs scripts in namespaces of their own, where they see a part of this machine."""

    def __init__(self, *, files: Collection[Path] = (), hidden: Collection[Path] = (), network: bool = True) -> None:
        """`files` are shown in addition, read-only; `hidden` are files that are not, with all in their directories.

        Without `network`, a script has loopback only.
        """
        shown = [os.path.abspath(path) for path in files]
        self._view: dict[str, Any] = {"files": shown, "hidden": hide(hidden, shown), "network": network}

    async def install(self, job: Job, *, output: Output, limit: float) -> None:
        """Mount the disks that have a mountpoint, run `install()`, and write all of it back."""
        refused = await asyncio.to_thread(calls.program)
        text = json.dumps(document(job) | self._view | {"calls": refused.hex()}).encode()
        proxies = [f"{name}={value}" for name, value in os.environ.items() if name.lower() in PROXIES]
        inside = [sys.executable, "-I", "-u", str(INSIDE), programs.confine.__file__, str(os.getpid())]
        argv = ["env", "-i", *ENVIRONMENT, *proxies, *inside]
        child = _Child(await programs.start(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE))
        try:
            async with asyncio.timeout(limit):
                await child.begin(text)
                await child.follow(output)
        except TimeoutError:
            raise TimedOut(f"The script did not finish within {limit:g} s and was ended.") from None
        finally:
            await child.end()
        if "failed" not in child.answers:
            raise InstallFailed("The process that the script ran in was killed.")
        if child.answers["failed"] is not None:
            raise InstallFailed(child.answers["failed"])


def hide(secrets: Collection[Path], shown: Collection[str]) -> list[str]:
    """Return what to hide: the directories of secret files, but of a directory that holds what is shown the file.

    Each is named as the script would find it: below what is shown, whatever symbolic links lead there.
    """
    paths = (*view.TREES, "/etc", sys.prefix, sys.base_prefix, *shown)
    places = [(os.path.realpath(path), path) for path in paths]
    found = set()
    for secret in map(os.path.realpath, secrets):
        directory = os.path.dirname(secret)
        hidden = secret if any(_is_below(real, directory) for real, _ in places) else directory
        shown_as = [path + hidden.removeprefix(real) for real, path in places if _is_below(hidden, real)]
        found |= {hidden, *shown_as}
    return sorted(found)


def _is_below(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


class _Child:
    """`inside.py` at work."""

    def __init__(self, process: Process) -> None:
        self.answers: dict[str, Any] = {}
        self._process = process
        self._init: int | None = None
        """A descriptor of process 1 of the namespaces; when it ends, all other processes in them end."""

    async def begin(self, text: bytes) -> None:
        """Hand over the job, and start it once the process to end is known."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(text + b"\n")
            await stdin.drain()
            await self._listen()
            if "init" in self.answers:
                with contextlib.suppress(ProcessLookupError):
                    self._init = os.pidfd_open(self.answers["init"])
                    stdin.write(b"go\n")
                    await stdin.drain()

    async def follow(self, output: Output) -> None:
        """Pass on the output until every process that could write has ended."""
        assert self._process.stdout is not None  # noqa: S101
        lines = Lines()
        while chunk := await self._process.stdout.read(65536):
            for line in lines.feed(chunk):
                await output(line)
        for line in lines.finish():
            await output(line)

    async def end(self) -> None:
        """Kill what is left, and wait until it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(END_SECONDS):
                if self._init is not None:
                    await _killed(self._init)
                while await self._listen():
                    pass
                await self._process.wait()
        except TimeoutError:
            log.error("processes of a script do not end: they wait for a device")
        finally:
            if self._init is not None:
                os.close(self._init)
            # A process that does not end holds the pipes: close this side of them.
            self._process._transport.close()  # type: ignore[attr-defined]
        await _detach(self.answers.get("files", ()))

    async def _listen(self) -> bool:
        """Read one line of its reports; return False at the end of them."""
        assert self._process.stderr is not None  # noqa: S101
        line = await self._process.stderr.readline()
        try:
            self.answers |= json.loads(line or b"{}")
        except ValueError:  # Python's own error, when it cannot run the program
            log.error("cannot run a script: %s", line.decode(errors="replace").rstrip())
        return bool(line)


async def _killed(descriptor: int) -> None:
    """Kill a process and wait for its end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


async def _detach(file_systems: Collection[int]) -> None:
    """Detach the loop devices of files on the script's file systems: they belong to no namespace."""
    if not file_systems:
        return
    numbers = {f"{os.major(each)}:{os.minor(each)}" for each in file_systems}
    try:
        result = await programs.run(
            ["losetup", "--list", "--json", "--output", "NAME,BACK-MAJ:MIN"], timeout=PROGRAM_SECONDS
        )
        for each in json.loads(result.stdout or '{"loopdevices": []}')["loopdevices"]:
            if (each["back-maj:min"] or "").strip() in numbers:  # empty for a file on a dead server
                await programs.run(["losetup", "--detach", each["name"]], timeout=PROGRAM_SECONDS)
    except PvcdError as error:
        log.error("cannot detach loop devices of a script: %s", error)
