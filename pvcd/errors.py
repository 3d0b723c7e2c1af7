"""The tree of errors; each is one sentence for the person who asked, with a stable code and a true HTTP status.

PvcdError
├── Refused               what was asked cannot be done as asked; nothing was changed
│   ├── Unauthorized      401  it is not known who asks
│   ├── CrossSite         403  another site asks in the name of who is logged in
│   ├── Invalid           400  a value is wrong: names the value and what would be valid
│   ├── NotFound          404  <kind>-not-found
│   ├── Conflict          409  something stands in the way
│   │   ├── HookRefused   409  a hook of the site did not want it
│   │   ├── Exists        409  there is one already
│   │   └── Changed       409  another writer was first
│   └── Locked            423  somebody else is at work on it
└── Failed                503  something outside did not do its part
    ├── StoreUnavailable  503  zookeeper-unavailable
    ├── TimedOut          503  no answer within the deadline
    ├── HookFailed        503  a hook of the site, without which it is not done, could not be run
    └── Passed                 what another process refused or failed to do, with its own code and status

`pvcd.http.middleware` is the one place that maps them to replies.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PvcdError(Exception):
    """An error that a user is meant to read."""

    status: int = 500
    usual_status: ClassVar[int] = 510
    """What a client gets that did not ask for a problem document: by the manual the same for every failure."""
    code: str = "error"

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code or type(self).code


class Refused(PvcdError):
    """What was asked cannot be done as asked; nothing was changed."""

    status = 400
    code = "refused"


class Unauthorized(Refused):
    """It is not known who asks."""

    status = usual_status = 401
    code = "authentication-required"


class CrossSite(Refused):
    """Another site asks in the name of who is logged in."""

    status = 403
    code = "cross-site"


class Invalid(Refused):
    """A value is wrong."""

    code = "invalid-value"


class NotFound(Refused):
    """There is no such thing."""

    status = 404

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"There is no {kind} {str(name)!r}.", code=f"{kind.lower().replace(' ', '-')}-not-found")


class Conflict(Refused):
    """Something stands in the way."""

    status = 409
    code = "conflict"


class HookRefused(Conflict):
    """A hook of the site did not want it."""

    code = "hook-refused"


class Exists(Conflict):
    """There is one already at that path."""

    code = "exists"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} exists already.")
        self.path = path


class Changed(Conflict):
    """Another writer was first: the version that was read is no longer the newest."""

    code = "changed"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was changed by somebody else in the meantime: look again and repeat the request.")
        self.path = path


class Locked(Refused):
    """Somebody else is at work on it."""

    status = 423
    code = "locked"


class Failed(PvcdError):
    """Something outside did not do its part."""

    status = 503
    code = "failed"


class StoreUnavailable(Failed):
    """ZooKeeper cannot be reached or has no quorum."""

    code = "zookeeper-unavailable"


class TimedOut(Failed):
    """An outside thing did not answer within the deadline."""

    code = "timed-out"


class HookFailed(Failed):
    """A hook of the site, without which it must not be done, could not be run or did not come to its end."""

    code = "hook-failed"


class Passed(Failed):
    """What another process refused or failed to do, in its own words and with its own status."""

    def __init__(self, sentence: str, *, code: str, status: int) -> None:
        super().__init__(sentence, code=code)
        self.status = status


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: a guess, or what would be valid."""
    valid = sorted(valid)
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid are: {', '.join(valid)}." if valid else "none is valid here."
