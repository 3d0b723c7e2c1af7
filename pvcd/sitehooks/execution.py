"""Run one site hook, confined so that nothing of it stays behind: see pvcd/programs/confine.py."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from pvcd.errors import PvcdError
from pvcd.programs import TooMuchWritten, confine, run
from pvcd.sitehooks.envelope import Envelope, environment
from pvcd.sitehooks.folder import Hook

MAX_OUTPUT_BYTES = 1024 * 1024
"""A site hook that writes more, to stdout or to stderr, is ended."""
KEPT_OUTPUT_BYTES = 64 * 1024
MAX_SENTENCE = 300
_END_SECONDS = 10.0
"""Time to remove the site hook, besides its own."""


@dataclass(frozen=True)
class Ending:
    """The end of a site hook: good without a sentence. `refused` if it exited by itself with another status than 0."""

    sentence: str = ""
    refused: bool = False
    status: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


async def execute(hook: Hook, document: Envelope, seconds: float) -> Ending:
    """Run an open site hook with its document, for at most so many seconds."""
    if hook.unsafe:
        return Ending(f"it {hook.unsafe}")
    began = time.monotonic()
    answers, report = os.pipe()
    try:
        argv = [sys.executable, "-I", "-S", str(Path(confine.__file__)), str(os.getpid()), str(report)]
        result = await run(
            [*argv, str(hook.file), str(seconds), hook.name, document["operation"], document["phase"]],
            timeout=seconds + _END_SECONDS,
            input=to_json(document),
            environment=environment(document),
            inherit=False,
            max_output=MAX_OUTPUT_BYTES,
            pass_fds=(hook.file, report),
            check=False,
            grace=_END_SECONDS,
        )
    except TooMuchWritten:
        return Ending(f"it wrote more than {MAX_OUTPUT_BYTES // 1024**2} MiB", seconds=time.monotonic() - began)
    except PvcdError as error:
        return Ending(error.sentence.rstrip("."), seconds=time.monotonic() - began)
    finally:
        os.close(report)
        text = _rest(answers)
    ending = _ending(json.loads(text or '{"ended": "it was killed"}'), result.stderr)
    stdout, stderr = map(_kept, (result.stdout, result.stderr))
    return Ending(**ending, stdout=stdout, stderr=stderr, seconds=time.monotonic() - began)


def _rest(answers: int) -> bytes:
    """Read what was written to a pipe whose writers have ended."""
    os.set_blocking(answers, False)
    with contextlib.suppress(BlockingIOError), open(answers, "rb", buffering=0) as pipe:
        return pipe.read() or b""
    return b""


def _ending(answer: dict[str, Any], stderr: bytes) -> dict[str, Any]:
    if "ended" in answer:
        return {"sentence": answer["ended"]}
    if "signal" in answer:
        return {"sentence": f"it was killed by {signal.Signals(answer['signal']).name}", "signal": answer["signal"]}
    status = answer["status"]
    words = _first_line(stderr) or f"it ended with exit status {status}"
    return {"status": status} if status == 0 else {"sentence": words, "refused": True, "status": status}


def _first_line(stderr: bytes) -> str:
    lines = (" ".join(line.split()) for line in stderr[:KEPT_OUTPUT_BYTES].decode(errors="replace").splitlines())
    line = next(filter(None, lines), "")
    return "".join(filter(str.isprintable, line))[:MAX_SENTENCE].rstrip(".")


def _kept(output: bytes) -> str:
    text = output[:KEPT_OUTPUT_BYTES].decode(errors="replace")
    return text if len(output) <= KEPT_OUTPUT_BYTES else f"{text}\n[{len(output) - KEPT_OUTPUT_BYTES} more bytes]"


def fingerprint(hook: Hook) -> str:
    """Return the SHA-256 of the file of a site hook."""
    if hook.unsafe:
        return ""
    with open(os.dup(hook.file), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.lseek(hook.file, 0, os.SEEK_SET)
    return digest
