"""Run the programs of Ceph with a deadline, and turn their exit status into a result or an error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from pvcd import NotFound, PvcdError, TimedOut, programs
from pvcd_plugins.ceph.cluster import CephError, CephRefused, CephUnavailable
from pvcd_plugins.ceph.cluster.answers import document

A = TypeVar("A")
B = TypeVar("B")

HELD: ContextVar[tuple[int, ...]] = ContextVar("HELD", default=())
"""The descriptors of the locks that are held, which the programs keep until they have ended."""
LONG_SECONDS = 3600.0
"""Limit for operations that take longer on a larger volume."""
_HEALTH_SECONDS = 5.0

_REFUSALS = {errno.EINVAL, errno.ERANGE, errno.EBUSY, errno.ENOSPC, errno.EDQUOT, errno.EOPNOTSUPP, errno.EFBIG}
_UNREACHED = re.compile(
    r"connecting to the cluster|couldn't connect to the cluster|Error initializing cluster client"
    r"|unable to open config file|failed to fetch mon config|^timed out$",
    re.MULTILINE,
)
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ [0-9a-f]+ +-?\d+ ")
_PREFIX = re.compile(r"^(Error E[A-Z]+: |rbd: |error: |\[errno \d+\] )+")
_PROGRESS = re.compile(r"^.*\d+% complete\.\.\.")


class Programs:
    """The programs `ceph`, `rbd` and `rados`, run against one cluster as one of its users, never through a shell."""

    def __init__(self, conf: str, user: str, deadline: float) -> None:
        self.deadline = deadline
        self.conf = conf
        self._user = f"client.{user}"

    async def ceph(
        self, *words: str, input: bytes | None = None, errors: Mapping[int, PvcdError] | None = None
    ) -> programs.Result:
        """Run `ceph`. `errors` holds the error to raise for each exit status that has a specific meaning."""
        argv = ("ceph", *self._options, "--connect-timeout", str(max(1, int(self.deadline))), *words)
        return self._judge(await self._run(argv, input), errors or {})

    async def ceph_json(self, *words: str, errors: Mapping[int, PvcdError] | None = None) -> Any:
        """Run `ceph` and return its JSON."""
        return document(await self.ceph(*words, "--format", "json", errors=errors))

    async def ceph_best_effort(self, *words: str, deadline: float) -> str:
        """Run `ceph` and return its output even if it fails; nothing if it does not end in time."""
        options = (*self._options, "--connect-timeout", str(max(1, int(deadline))))
        with contextlib.suppress(CephUnavailable):
            return (await self._run(("ceph", *options, *words), deadline=deadline)).stdout.decode(errors="replace")
        return ""

    async def rados(self, *words: str) -> programs.Result:
        """Run `rados`."""
        return self._judge(await self._run(("rados", *self._options, *words)), {})

    async def rbd(self, *words: str, errors: Mapping[int, PvcdError] | None = None, ignore: int = 0) -> programs.Result:
        """Run `rbd`. `ignore` is an exit status that counts as success."""
        return self._judge(await self._run(("rbd", *self._options, *words)), errors or {}, ignore)

    async def rbd_json(self, *words: str, errors: Mapping[int, PvcdError] | None = None) -> Any:
        """Run `rbd` and return its JSON."""
        return document(await self.rbd(*words, "--format", "json", errors=errors))

    async def rbd_long(self, *words: str, on: str, errors: Mapping[int, PvcdError] | None = None) -> programs.Result:
        """Run `rbd` for up to an hour, as long as Ceph keeps answering requests about the image `on`."""
        argv = ("rbd", *self._options, *words, "--no-progress")
        work = asyncio.create_task(self._run(argv, deadline=LONG_SECONDS))
        try:
            while not (await asyncio.wait({work}, timeout=self.deadline / 2))[0]:
                # Any answer shows that Ceph is alive.
                await self._run(("rbd", *self._options, "info", on), deadline=self.deadline / 2)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        return self._judge(work.result(), errors or {})

    @property
    def _options(self) -> tuple[str, ...]:
        return ("--conf", self.conf, "--name", self._user)

    async def _run(
        self, argv: tuple[str, ...], input: bytes | None = None, deadline: float | None = None
    ) -> programs.Result:
        limit = deadline or self.deadline
        try:
            return await programs.run(argv, timeout=limit, input=input, check=False, pass_fds=HELD.get())
        except TimedOut:
            raise await self._late(argv[0], limit) from None
        except programs.ProgramFailed as error:
            raise CephUnavailable(error.sentence) from None

    async def _late(self, program: str, seconds: float) -> CephUnavailable:
        """Tell a Ceph that does not answer from one whose monitors do, such as when a pool cannot be written."""
        if program != "ceph":
            with contextlib.suppress(PvcdError):
                asked = await programs.run(("ceph", *self._options, "health"), timeout=_HEALTH_SECONDS)
                health = asked.stdout.decode(errors="replace").strip()
                return CephUnavailable(f"Ceph did not finish within {seconds:g} s; it reports {health}.")
        return _silent(seconds)

    def _judge(self, result: programs.Result, errors: Mapping[int, PvcdError], ignore: int = 0) -> programs.Result:
        """Return the result of a program that succeeded; raises an error for one that failed."""
        if result.returncode == 0:
            return result
        text = result.stderr.decode(errors="replace")
        if _UNREACHED.search(text):
            raise (
                _silent(self.deadline) if "imed out" in text else CephUnavailable(f"Cannot reach Ceph: {words(text)}.")
            )
        if result.returncode == errno.ENOENT and (pool := re.search(r"error opening pool '(.*?)'", text)):
            raise NotFound("pool", pool[1])
        if result.returncode == ignore:
            return result
        if result.returncode in errors:
            raise errors[result.returncode]
        if result.returncode in _REFUSALS or text.startswith("Error EPERM"):
            raise CephRefused(f"Ceph refused: {words(text)}.")
        raise CephError(f"Ceph failed: {words(text) or f'exit status {result.returncode}'}.")


def _silent(seconds: float) -> CephUnavailable:
    return CephUnavailable(f"Ceph did not answer within {seconds:g} s.")


def words(text: str) -> str:
    """Return the last line of stderr that is a message for people, without prefixes and full stop."""
    lines = [_PROGRESS.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line != "failed."]
    plain = [line for line in lines if not _LOG_LINE.match(line)] or [_LOG_LINE.sub("", line) for line in lines]
    return _PREFIX.sub("", plain[-1]).strip().rstrip(".")[:300] if plain else ""


async def together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Return both results; when one fails, the other is canceled."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
