"""The kernel parameters of bridges. To be called in a thread, because the kernel may block a write."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pvcd import Failed

ROOT = Path("/proc/sys/net")


def pass_by_filters() -> None:
    """Exempt frames that stay within a bridge from the filters for routed packets."""
    for name in ("iptables", "ip6tables", "arptables"):
        _set(ROOT / "bridge" / f"bridge-nf-call-{name}", "0")


def isolate(bridge: str, uplink: str) -> None:
    """Keep the node itself out of a network, so that no guest can give it addresses or routes."""
    six = ROOT / "ipv6" / "conf"
    _set(six / uplink / "disable_ipv6", "1")
    for name, value in (("disable_ipv6", "1"), ("accept_ra", "0"), ("addr_gen_mode", "1")):
        _set(six / bridge / name, value)
    # Without it, an address that expires takes others of its subnet along.
    _set(ROOT / "ipv4" / "conf" / bridge / "promote_secondaries", "1")


def route(bridge: str, versions: Collection[int]) -> None:
    """Make the node a router for a bridge, with these versions of IP."""
    if 4 in versions:
        _set(ROOT / "ipv4" / "conf" / bridge / "forwarding", "1")
    if 6 in versions:
        six = ROOT / "ipv6" / "conf"
        if _get(six / "all" / "forwarding") == "0":
            _keep_own_routes()
        _set(six / "all" / "forwarding", "1")
        _set(six / bridge / "disable_ipv6", "0")


def _keep_own_routes() -> None:
    """Keep the node's own devices accepting router advertisements, which a router ignores by default."""
    for folder in (ROOT / "ipv6" / "conf").iterdir():
        if folder.name not in ("all", "default") and _get(folder / "accept_ra") == "1":
            _set(folder / "accept_ra", "2")


def _get(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _set(file: Path, value: str) -> None:
    """Write a parameter, if this kernel has it and its value differs."""
    if _get(file) in (value, None):
        return
    try:
        file.write_text(value)
    except FileNotFoundError:
        return  # The link has just been removed.
    except OSError as error:
        raise Failed(f"Cannot set {file}: {error.strerror}.") from error
