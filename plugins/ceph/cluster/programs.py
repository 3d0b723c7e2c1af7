"""Ceph's own programs: run one of them with a deadline, and turn how it ended into an answer or an error."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from pvcd import NotFound, PvcdError, TimedOut, programs
from pvcd_plugins.ceph.cluster import CephError, CephRefused, CephUnavailable
from pvcd_plugins.ceph.cluster.answers import document

A = TypeVar("A")
B = TypeVar("B")

LONG = 3600.0
"""Seconds for what takes longer the larger a volume is."""

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
    """Runs `ceph`, `rbd` and `rados` against one cluster as one of its users. Only argument vectors, never a shell."""

    def __init__(self, conf: str, user: str, deadline: float) -> None:
        self.deadline = deadline
        self.conf = conf
        self._user = f"client.{user}"

    async def ceph(
        self, *words: str, input: bytes | None = None, no: Mapping[int, PvcdError] | None = None
    ) -> programs.Result:
        """Run `ceph`. `no` holds the error to raise for an exit status that has a meaning of its own."""
        argv = ("ceph", *self._options, "--connect-timeout", str(max(1, int(self.deadline))), *words)
        return self._judge(await self._run(argv, input), no or {})

    async def ceph_json(self, *words: str, no: Mapping[int, PvcdError] | None = None) -> Any:
        """What `ceph` answers in JSON."""
        return document(await self.ceph(*words, "--format", "json", no=no))

    async def ceph_at_best(self, *words: str, deadline: float) -> str:
        """What `ceph` writes, whether it succeeds or not; nothing when it does not end in time."""
        options = (*self._options, "--connect-timeout", str(max(1, int(deadline))))
        with contextlib.suppress(CephUnavailable):
            return (await self._run(("ceph", *options, *words), deadline=deadline)).stdout.decode(errors="replace")
        return ""

    async def rados(self, *words: str) -> programs.Result:
        """Run `rados`."""
        return self._judge(await self._run(("rados", *self._options, *words)), {})

    async def rbd(self, *words: str, no: Mapping[int, PvcdError] | None = None, fine: int = 0) -> programs.Result:
        """Run `rbd`. `fine` is an exit status that is no failure either."""
        return self._judge(await self._run(("rbd", *self._options, *words)), no or {}, fine)

    async def rbd_json(self, *words: str, no: Mapping[int, PvcdError] | None = None) -> Any:
        """What `rbd` answers in JSON."""
        return document(await self.rbd(*words, "--format", "json", no=no))

    async def rbd_long(self, *words: str, on: str, no: Mapping[int, PvcdError] | None = None) -> programs.Result:
        """Run `rbd` for as long as it takes (an hour at most), while Ceph goes on telling of the image `on`."""
        argv = ("rbd", *self._options, *words, "--no-progress")
        work = asyncio.create_task(self._run(argv, deadline=LONG))
        try:
            while not (await asyncio.wait({work}, timeout=self.deadline / 2))[0]:
                # Whatever it says, it is alive.
                await self._run(("rbd", *self._options, "info", on), deadline=self.deadline / 2)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        return self._judge(work.result(), no or {})

    @property
    def _options(self) -> tuple[str, ...]:
        return ("--conf", self.conf, "--name", self._user)

    async def _run(
        self, argv: tuple[str, ...], input: bytes | None = None, deadline: float | None = None
    ) -> programs.Result:
        try:
            return await programs.run(argv, timeout=deadline or self.deadline, input=input, check=False)
        except TimedOut:
            raise self._silent() from None
        except programs.ProgramFailed as error:
            raise CephUnavailable(error.sentence) from None

    def _silent(self) -> CephUnavailable:
        return CephUnavailable(f"Ceph did not answer within {self.deadline:g} s.")

    def _judge(self, result: programs.Result, no: Mapping[int, PvcdError], fine: int = 0) -> programs.Result:
        """The result of a program that succeeded; raises for one that did not."""
        if result.returncode == 0:
            return result
        text = result.stderr.decode(errors="replace")
        if _UNREACHED.search(text):
            raise self._silent() if "imed out" in text else CephUnavailable(f"Ceph cannot be reached: {words(text)}.")
        if result.returncode == errno.ENOENT and (pool := re.search(r"error opening pool '(.*?)'", text)):
            raise NotFound("pool", pool[1])
        if result.returncode == fine:
            return result
        if result.returncode in no:
            raise no[result.returncode]
        if result.returncode in _REFUSALS or text.startswith("Error EPERM"):
            raise CephRefused(f"Ceph refuses: {words(text)}.")
        raise CephError(f"Ceph failed: {words(text) or f'exit status {result.returncode}'}.")


def words(text: str) -> str:
    """What a program said last that is meant for people, without a full stop."""
    lines = [_PROGRESS.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and line != "failed."]
    plain = [line for line in lines if not _LOG_LINE.match(line)] or [_LOG_LINE.sub("", line) for line in lines]
    return _PREFIX.sub("", plain[-1]).strip().rstrip(".")[:300] if plain else ""


async def together(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """The results of both; when one fails the other is ended."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
