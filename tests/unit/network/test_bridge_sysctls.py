"""Which of the kernel's settings are changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvcd.errors import Failed
from pvcd_plugins.network.bridge import sysctls

NAMES = ("disable_ipv6", "accept_ra", "addr_gen_mode", "forwarding")


@pytest.fixture(name="root")
def root_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for link in ("all", "default", "eth0", "eth1", "vmbr200", "vxlan200"):
        for family, names in (("ipv4", ("forwarding", "promote_secondaries")), ("ipv6", NAMES)):
            folder = tmp_path / family / "conf" / link
            folder.mkdir(parents=True)
            for name in names:
                (folder / name).write_text("0\n")
    for link in ("all", "default", "eth0", "vmbr200"):
        (tmp_path / "ipv6/conf" / link / "accept_ra").write_text("1\n")
    monkeypatch.setattr(sysctls, "ROOT", tmp_path)
    return tmp_path


def changed(root: Path) -> dict[str, str]:
    """What was written; it has no newline."""
    files = (file for file in root.rglob("*") if file.is_file() and not file.read_text().endswith("\n"))
    return {str(file.relative_to(root)): file.read_text() for file in files}


def test_a_network_is_kept_apart_from_the_node(root: Path) -> None:
    sysctls.isolate("vmbr200", "vxlan200")
    assert changed(root) == {
        "ipv6/conf/vxlan200/disable_ipv6": "1",
        "ipv6/conf/vmbr200/disable_ipv6": "1",
        "ipv6/conf/vmbr200/accept_ra": "0",
        "ipv6/conf/vmbr200/addr_gen_mode": "1",
        "ipv4/conf/vmbr200/promote_secondaries": "1",
    }


def test_for_ipv4_only_the_bridge_becomes_a_router(root: Path) -> None:
    sysctls.route("vmbr200", {4})
    assert changed(root) == {"ipv4/conf/vmbr200/forwarding": "1"}


def test_for_ipv6_the_node_becomes_a_router_that_listens_to_others_as_before(root: Path) -> None:
    sysctls.isolate("vmbr200", "vxlan200")
    before = changed(root)
    sysctls.route("vmbr200", {6})
    assert changed(root) == before | {
        "ipv6/conf/all/forwarding": "1",
        "ipv6/conf/eth0/accept_ra": "2",
        "ipv6/conf/vmbr200/disable_ipv6": "0",
    }


def test_a_router_leaves_later_changes_alone(root: Path) -> None:
    (root / "ipv6/conf/all/forwarding").write_text("1\n")
    sysctls.route("vmbr200", {6})
    assert "ipv6/conf/eth0/accept_ra" not in changed(root)


def test_filters_of_bridges_are_switched_off_where_there_are_any(root: Path) -> None:
    sysctls.pass_by_filters()
    assert changed(root) == {}
    (root / "bridge").mkdir()
    for name in ("bridge-nf-call-iptables", "bridge-nf-filter-vlan-tagged"):
        (root / "bridge" / name).write_text("1\n")
    sysctls.pass_by_filters()
    assert changed(root) == {"bridge/bridge-nf-call-iptables": "0"}


def test_a_link_that_has_gone_and_a_kernel_without_ipv6_are_no_failure(root: Path) -> None:
    sysctls.isolate("vmbr999", "vxlan999")
    sysctls.route("vmbr999", {4})
    assert changed(root) == {}


def test_a_setting_that_cannot_be_made_is_a_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(Failed, match=r"Cannot set .*vmbr200/forwarding: Read-only file system"):
        sysctls.route("vmbr200", {4})
