"""The errors of ZooKeeper, as ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kazoo.exceptions import (
    AuthFailedError,
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    KazooException,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    SessionClosedRequireSaslError,
    SessionExpiredError,
)

from pvcd import errors
from pvcd.errors import PvcdError, StoreUnavailable
from pvcd.store.tree import NodeChange

_LOST = (ConnectionLoss, ConnectionClosedError, SessionExpiredError)


class Refusal(NamedTuple):
    """The change for which a transaction was refused, and ZooKeeper's reason."""

    change: NodeChange
    reason: KazooException


def failure(hosts: str, error: Exception) -> StoreUnavailable:
    """Return the error to raise for one that is not about a document."""
    if isinstance(error, _LOST):
        return StoreUnavailable(f"ZooKeeper at {hosts} did not answer: the connection broke.")
    if isinstance(error, NoAuthError | AuthFailedError | SessionClosedRequireSaslError):
        return StoreUnavailable(f"Cannot use ZooKeeper at {hosts}: access denied. Check the user name and password.")
    return StoreUnavailable(f"ZooKeeper at {hosts} failed: {type(error).__name__}.")


def refused(hosts: str, refusal: Refusal) -> PvcdError:
    """Return the error to raise for one about a document; see `Tree.commit`."""
    path = refusal.change.path
    match refusal.reason:
        case NodeExistsError():
            return errors.Exists(path)
        case BadVersionError() | NoNodeError() | NotEmptyError():
            return errors.Changed(path)
        case NoChildrenForEphemeralsError():
            return errors.Invalid(f"{path!r} cannot be created: its parent is ephemeral.")
    return failure(hosts, refusal.reason)


def failure_of(results: Sequence[Any]) -> tuple[int, KazooException] | None:
    """Return the index and the error of the change that failed; those before it are marked as rolled back."""
    for index, result in enumerate(results):
        if isinstance(result, KazooException) and not isinstance(result, RolledBackError):
            return index, result
    return None
