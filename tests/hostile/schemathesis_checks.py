"""Additional checks for schemathesis, which imports this file by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis

last: list[bytes] = []
"""The records after the last request that was not refused."""


@schemathesis.check
def refused_writes_nothing(ctx: Any, response: Any, case: Any) -> None:
    """After a request that was refused the cluster is what it was before; no agent runs that could change it."""
    address = urlsplit(case.as_transport_kwargs()["url"])
    base = f"{address.scheme}://{address.netloc}/api/v1"
    now = [requests.get(base + path, timeout=10).content for path in ("/vm", "/node")]
    if last and response.status_code >= 400:
        assert now == last, "a request that was refused has changed something"
    last[:] = now
