"""The errors that a user reads: one sentence, a stable code and an HTTP status each.

PvcdError
├── Refused               cannot be done as asked; nothing was changed
│   ├── Unauthorized      401  the request does not say who makes it
│   ├── CrossSite         403  a page of another site sent the request
│   ├── HostRefused       403  the request is for a host name that is not this API's
│   ├── Invalid           400  a value is wrong: `state must be one of start, stop; got 'fly'.`
│   ├── NotFound          404  <kind>-not-found
│   ├── Conflict          409  the present state does not allow it
│   │   ├── HookRefused   409  a site hook refused it
│   │   └── Changed       409  another writer was first
│   │       └── Exists    409  there is one already
│   ├── TooManyAttempts   429  too many tokens of an address wait to be checked
│   └── Locked            423  another request or task is working on it
└── Failed                503  something outside of pvcd failed
    ├── StoreUnavailable  503  zookeeper-unavailable
    ├── TimedOut          503  no answer within the deadline
    ├── HookFailed        503  a site hook that had to agree could not be run
    └── Passed                 an error of another process, with its code and status

`pvcd.http.middleware` maps them to replies. docs/glossary.md says how their sentences are formed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PvcdError(Exception):
    """An error whose sentence is shown to the user."""

    status: int = 500
    usual_status: ClassVar[int] = 510
    """The status for clients that do not ask for problem documents; the manual has one for every failure."""
    code: str = "error"

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code or type(self).code


class Refused(PvcdError):
    """A request that cannot be done as asked; nothing was changed."""

    status = 400
    code = "refused"


class Unauthorized(Refused):
    """A request without a valid token or login session."""

    status = usual_status = 401
    code = "authentication-required"


class CrossSite(Refused):
    """A request that a page of another site sent."""

    status = 403
    code = "cross-site"


class HostRefused(Refused):
    """A request for a host name that is not this API's."""

    status = 403
    code = "host-not-allowed"


class Invalid(Refused):
    """A wrong value."""

    code = "invalid-value"


class NotFound(Refused):
    """A thing that does not exist."""

    status = 404

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"There is no {kind} {str(name)!r}.", code=f"{kind.lower().replace(' ', '-')}-not-found")


class Conflict(Refused):
    """A request that the present state does not allow."""

    status = 409
    code = "conflict"


class HookRefused(Conflict):
    """A request that a site hook refused."""

    code = "hook-refused"


class Changed(Conflict):
    """A record that another writer changed after it was read."""

    code = "changed"
    sentence_template: ClassVar[str] = (
        "Cannot write {path!r}: changed by another writer meanwhile. Read it again and repeat the request."
    )

    def __init__(self, path: str) -> None:
        super().__init__(self.sentence_template.format(path=path))
        self.path = path


class Exists(Changed):
    """A record to be created that exists already."""

    code = "exists"
    sentence_template = "Cannot create {path!r}: it exists already."


class TooManyAttempts(Refused):
    """A token that is not looked at, as too many others of its address wait."""

    status = 429
    code = "too-many-attempts"


class Locked(Refused):
    """A thing on which another request or task is working."""

    status = 423
    code = "locked"


class Failed(PvcdError):
    """A failure of something outside of pvcd."""

    status = 503
    code = "failed"


class StoreUnavailable(Failed):
    """A ZooKeeper that cannot be reached or has no quorum."""

    code = "zookeeper-unavailable"


class TimedOut(Failed):
    """No answer from outside within the deadline."""

    code = "timed-out"


class HookFailed(Failed):
    """A site hook that had to agree could not be run, or did not finish."""

    code = "hook-failed"


class Passed(Failed):
    """An error of another process, with its sentence, code and status."""

    def __init__(self, sentence: str, *, code: str, status: int) -> None:
        super().__init__(sentence, code=code)
        self.status = status


def wrong_value(name: str, got: str, reason: str) -> str:
    """Return the sentence about a wrong value; `reason` is the rule (`must be ...`) or what the value violates."""
    return f"{name} {reason}; got {got}." if reason.startswith("must ") else f"{name} cannot be {got}: {reason}."


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown word: the nearest valid word, or all of them."""
    valid = sorted(valid)
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid are: {', '.join(valid)}." if valid else "none is valid here."
