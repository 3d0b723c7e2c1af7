"""The kernel's settings of bridges, as files. To be called in a thread: the kernel may let a writer wait."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pvcd import Failed

ROOT = Path("/proc/sys/net")


def pass_by_filters() -> None:
    """Do not let frames that stay within a bridge pass through the filters of routed packets."""
    for name in ("iptables", "ip6tables", "arptables"):
        _set(ROOT / "bridge" / f"bridge-nf-call-{name}", "0")


def isolate(bridge: str, uplink: str) -> None:
    """Let the node itself take no part in a network: no guest may give it addresses or routes."""
    six = ROOT / "ipv6" / "conf"
    _set(six / uplink / "disable_ipv6", "1")
    for name, value in (("disable_ipv6", "1"), ("accept_ra", "0"), ("addr_gen_mode", "1")):
        _set(six / bridge / name, value)
    # Without it an address that vanishes takes others of its network along.
    _set(ROOT / "ipv4" / "conf" / bridge / "promote_secondaries", "1")


def route(bridge: str, versions: Collection[int]) -> None:
    """Let the node be a router for a bridge, with these versions of IP."""
    if 4 in versions:
        _set(ROOT / "ipv4" / "conf" / bridge / "forwarding", "1")
    if 6 in versions:
        six = ROOT / "ipv6" / "conf"
        if _get(six / "all" / "forwarding") == "0":
            _keep_own_routes()
        _set(six / "all" / "forwarding", "1")
        _set(six / bridge / "disable_ipv6", "0")


def _keep_own_routes() -> None:
    """Let the node's devices go on listening to routers, which they would not as soon as it is one itself."""
    for folder in (ROOT / "ipv6" / "conf").iterdir():
        if folder.name not in ("all", "default") and _get(folder / "accept_ra") == "1":
            _set(folder / "accept_ra", "2")


def _get(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _set(file: Path, value: str) -> None:
    """Write a setting that this kernel has and that is another one."""
    if _get(file) in (value, None):
        return
    try:
        file.write_text(value)
    except FileNotFoundError:
        return  # The link has just gone.
    except OSError as error:
        raise Failed(f"{file} cannot be set: {error.strerror}.") from error
