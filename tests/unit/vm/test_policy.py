"""The XML of a VM stays within the guest, Ceph volumes and networks, unless the settings grant more."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pvcd import Create, Put
from pvcd.testing import SimulatedCluster
from pvcd_plugins.vm.components import HYPERVISOR
from pvcd_plugins.vm.free import INCLUDED, VALUES, WORD
from pvcd_plugins.vm.grants import GRANTS
from pvcd_plugins.vm.hypervisor.fake import FakeHypervisor
from pvcd_plugins.vm.policy import (
    EVERYTHING,
    FILE,
    FILES,
    PACKAGED,
    HostAccess,
    HostAccessRequired,
    Rule,
    free,
    opened_by,
    refuse_host_access,
)
from pvcd_plugins.vm.records import VM, State, VMName
from pvcd_plugins.vm.schema import SCHEMA, mistake_in

from .conftest import uuid_of
from .libvirt_schema import Schema
from .xml_documents import FREELY, PATHS, REFUSED, disk, document, interface

PLAIN = HostAccess()
DOCS = Path(__file__).parents[3] / "docs"


def sentence_about(xml: str, access: HostAccess = PLAIN) -> str:
    with pytest.raises(HostAccessRequired) as caught:
        refuse_host_access("Cannot define VM 'web1':", xml, access)
    return caught.value.sentence


@pytest.mark.parametrize(("grant", "xml"), REFUSED)
def test_what_reaches_into_the_node_requires_its_grant(grant: str, xml: str) -> None:
    needs = "a directory above it in the grant 'files'" if grant == FILES else f"the grant {grant!r}"
    assert sentence_about(xml).endswith(f"; it requires {needs} in pvc.vm.host_access.")
    others = set(GRANTS) - {grant, EVERYTHING}
    if grant in (EVERYTHING, FILES):
        sentence_about(xml, HostAccess(frozenset(others)))
    refuse_host_access("", xml, HostAccess(frozenset({EVERYTHING})))


@pytest.mark.parametrize(("grant", "xml"), REFUSED)
def test_with_its_grant_it_is_allowed(grant: str, xml: str) -> None:
    refuse_host_access("", xml, HostAccess(frozenset({grant}), ("/",)))


@pytest.mark.parametrize(("grant", "xml"), PATHS)
def test_a_grant_that_is_about_no_paths_lets_none_pass(grant: str, xml: str) -> None:
    assert f"the grant {grant!r}" not in sentence_about(xml, HostAccess(frozenset({grant})))


@pytest.mark.parametrize("xml", FREELY)
def test_what_stays_within_the_guest_needs_no_grant(xml: str) -> None:
    refuse_host_access("", xml, PLAIN)
    assert not SCHEMA.exists() or mistake_in(xml) is None


def documented() -> Iterator[str]:
    """Every definition, and every part of one, that the documentation shows."""
    yield (DOCS / "examples" / "web1.xml").read_text()
    for page in sorted(DOCS.glob("*.md")):
        for part in re.findall(r"^```xml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            below = re.match(r"<(interface|disk|serial)", part)
            yield document(part) if below else document(above=part)


def test_what_the_documentation_shows_needs_no_grant() -> None:
    shown = list(documented())
    assert len(shown) > 3
    for xml in shown:
        refuse_host_access("", xml, PLAIN)


def test_the_sentence_names_the_element_its_line_and_the_grant() -> None:
    assert sentence_about(interface("ethernet")) == (
        "Cannot define VM 'web1': <interface type='ethernet'> (line 4) reaches into the node; it requires the grant "
        "'ethernet' in pvc.vm.host_access."
    )
    assert "<kernel> with '/boot/x' (line 3) reaches into" in sentence_about(
        document(system="<kernel>/boot/x</kernel>")
    )
    assert "<future> (line 4) is not known to stay within the guest" in sentence_about(document("<future/>"))
    long = sentence_about(disk("file", f"<source file='/{'a' * 5000}'/>"))
    assert len(long) < 300 and "\n" not in long


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/srv/images/a.raw", True),
        ("/srv/images/deep/a.raw", True),
        ("/srv/images", False),
        ("/srv/images/", False),
        ("/srv/images2/a.raw", False),
        ("/srv/images/../../etc/shadow", False),
        ("/srv/images//a.raw", False),
        ("/srv/images/./a.raw", False),
        ("//srv/images/a.raw", False),
        (" /srv/images/a.raw", False),
        ("srv/images/a.raw", False),
        ("/srv/images/a&#10;b", False),
        ("/usr/share/qemu/a.raw", False),
        ("json:{}", False),
    ],
)
def test_files_must_be_below_a_granted_directory(path: str, allowed: bool) -> None:
    access, xml = HostAccess(frozenset({FILES}), ("/srv/images",)), disk("file", f"<source file='{path}'/>")
    if allowed:
        refuse_host_access("", xml, access)
    else:
        sentence_about(xml, access)


# The tables and libvirt's schema

HARMLESS = re.compile(
    r"'.*'|virYesNo|(unsigned|positive|scaled)\w+|int(eger)?|uint\d+|hexuint|unit|memoryKB|cpuset|countCPU|cpu(period|quota)"
    r"|(pci|drive|usb|ccw|ccid|virtioserial|spaprvio|zpci)\w+|aliasName|speed|BurstSize|timeDelta|numaDistanceValue"
    r"|featureName|uniMacAddr|wwn|UUID|dateTime|rebootTimeoutDelay|diskTargetDev|diskSerial|createMode"
)
"""Kinds of values that are numbers, literals, or names within the guest."""
TELLING = re.compile(
    r"(?i)path|file|dir|dev|socket|host|service|listen|tty|bridge|network|pool|volume|secret|address|port"
)
"""Names of what may be outside of the guest."""
WITHIN = re.compile(r"devices/.*/?address|.*@(dev|devno|port|ports|chassis.*|startport)|.*/mac@address|pm/.*")
EXPLAINED = {
    "description@#": "for people",
    "title@#": "for people",
    "os/cmdline@#": "the kernel's own arguments, one argument of QEMU",
    "sysinfo/*/entry@#": "shown to the guest's firmware",
    "sysinfo/entry@#": "given to the guest as it is",
    "sysinfo/entry@name": "a name within the guest's firmware",
    "clock@timezone": "a name without a path from the root or ..",
    "devices/disk/serial@#": "shown to the guest",
    "devices/disk/vendor@#": "shown to the guest",
    "devices/disk/product@#": "shown to the guest",
    "devices/disk/source@name": "pool/volume of the cluster's Ceph",
    "devices/emulator@#": "QEMU itself",
    "devices/graphics@listen": "loopback",
    "devices/graphics/listen@address": "loopback",
    "devices/graphics@port": "of VNC on loopback",
    "devices/graphics@tlsPort": "of SPICE on loopback",
    "devices/graphics@websocket": "of VNC on loopback",
    "devices/graphics@passwd": "a password",
    "devices/interface/filterref@filter": "a filter that only forbids",
    "devices/interface/source@bridge": "that of a network",
    "devices/interface/target@dev": "libvirt ignores this name and chooses one",
    "devices/rng/backend@#": "sources of random numbers",
}
"""Each free value that could name something outside, and why it cannot."""


@cache
def leaves() -> tuple[tuple[str, str, frozenset[str]], ...]:
    """Every attribute and text of libvirt's schema, with its path in the domain and its kinds."""
    return tuple((path.partition("/")[2], name, kinds) for path, name, kinds in Schema(SCHEMA).leaves("domain"))


def rule_of(path: str) -> Rule | None:
    rule: Rule | None = free()
    for tag in filter(None, path.split("/")):
        rule = (rule.children.get(tag) or rule.children.get("*")) if rule else None
    return rule


def paths(rule: Rule, path: str = "") -> Iterator[tuple[str, str]]:
    for name in rule.values if not rule.free else ():
        yield path, name
    for tag, child in rule.children.items():
        below = f"{path}/{tag}".removeprefix("/")
        yield below, ""
        yield from paths(child, below)


needs_schema = pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not installed here")


@needs_schema
def test_nothing_that_may_name_a_part_of_the_node_is_free() -> None:
    checked, used = 0, set()
    for path, name, kinds in leaves():
        rule = rule_of(path)
        pattern = rule.values.get(name) if rule and not rule.free else None
        if pattern is None:
            continue
        checked += 1
        place = f"{re.sub(r'^sysinfo/[a-zA-Z]+/', 'sysinfo/*/', path)}@{name}"
        suspect = not all(HARMLESS.fullmatch(kind) for kind in kinds) or (
            TELLING.search(name) and not WITHIN.fullmatch(place)
        )
        paths_or_hosts = {each for each in kinds if re.search(r"(?i)path|addr|dnsName|deviceName|PortNumber", each)}
        literal = all(kind.startswith("'") for kind in kinds)
        if pattern in (FILE, PACKAGED) or literal or place in EXPLAINED:
            used.add(place)
        elif suspect:
            assert pattern in (WORD, VALUES["COUNT"]) or re.fullmatch(r"[a-z|-]+", pattern), place
            assert not paths_or_hosts - {"uniMacAddr", "usbAddr"}, place
    assert checked > 500 and set(EXPLAINED) <= used


@pytest.mark.parametrize(
    "value", ["/", "/etc/shadow", "a/b", "..\\", "a=b", "$(a)", "`a`", "%h", "~", "{a}", "http://a"]
)
def test_a_word_is_no_path_and_no_program(value: str) -> None:
    assert not re.fullmatch(WORD, value)


@needs_schema
def test_every_line_of_the_tables_is_about_something_in_the_schema() -> None:
    known = {(path, name) for path, name, _ in leaves()} | {(path, "") for path, _, _ in leaves()}
    included = set(" ".join(INCLUDED.values()).split())
    missing = {
        (path, name)
        for path, name in paths(free())
        if (path, name) not in known
        and "*" not in path
        and name not in included
        and not any(tag in included for tag in path.split("/")[2:])
    }
    assert missing == set()


@needs_schema
def test_every_grant_opens_something_that_is_closed_without_it() -> None:
    places = {path for path, _, _ in leaves()} | {f"{path}@{name}" for path, name, _ in leaves()}
    values = {f"{path}@{name}={kind[1:-1]}" for path, name, kinds in leaves() for kind in kinds if kind[0] == "'"}
    for grant, its in GRANTS.items():
        for pattern in its.opens:
            of_any_value = pattern.rpartition("=")[0]
            assert any(re.fullmatch(pattern, place) for place in itertools.chain(places, values)) or any(
                re.fullmatch(of_any_value, place) for place in places
            ), (grant, pattern)


def test_elements_of_another_namespace_need_a_grant() -> None:
    assert opened_by("{http://libvirt.org/schemas/domain/qemu/1.0}commandline") == ("commandline", EVERYTHING)
    assert opened_by("{http://libvirt.org/schemas/domain/xen/1.0}commandline") == (EVERYTHING,)


# Where it is enforced


async def test_the_api_refuses_a_definition_and_a_change_without_the_grant() -> None:
    async with SimulatedCluster() as cluster:
        evil = document("<serial type='file'><source path='/etc/cron.d/x'/></serial>")
        reply = await cluster.request("POST", "/api/v1/vm", xml=evil)
        assert (reply.status, reply.json["code"]) == (510, "host-access-required")
        assert cluster.api.store.all(VM) == []
        assert (await cluster.request("POST", "/api/v1/vm", xml=document())).status == 200
        reply = await cluster.request("PUT", "/api/v1/vm/web1", xml=evil)
        assert (reply.status, reply.json["code"]) == (510, "host-access-required")
        assert [vm.xml for vm in cluster.api.store.all(VM)] == [document()]


async def test_the_api_accepts_a_definition_with_the_grant() -> None:
    async with SimulatedCluster(vm={"host_access": [{"files": ["/srv/images"]}]}) as cluster:
        good, evil = (disk("file", f"<source file='{path}'/>") for path in ("/srv/images/a", "/srv/images/../a"))
        assert (await cluster.request("POST", "/api/v1/vm", xml=evil)).json["code"] == "host-access-required"
        assert (await cluster.request("POST", "/api/v1/vm", xml=good)).status == 200


async def test_a_node_starts_no_stored_definition_that_its_own_settings_do_not_grant() -> None:
    async with SimulatedCluster() as cluster:
        evil = document("<serial type='file'><source path='/etc/cron.d/x'/></serial>")
        vm = VM(uuid=uuid_of("web1"), name="web1", node="hv1", state=State.START, generation=1, xml=evil)
        await cluster.api.store.write(Create(VMName(name="web1", uuid=vm.uuid)), Create(vm))
        await cluster.clock.advance(5)
        (shown,) = (await cluster.request("GET", "/api/v1/vm/web1")).json
        assert (shown["state"], shown["running"]) == ("fail", False)
        assert shown["failed_reason"] == (
            "Cannot start VM 'web1': <serial type='file'> (line 4) reaches into the node; it requires the grant "
            "'chardev' in pvc.vm.host_access."
        )
        hypervisor = cluster.agents["hv1"][HYPERVISOR]
        assert isinstance(hypervisor, FakeHypervisor) and hypervisor.started == []
        stored = await cluster.api.store.read(VM, vm.uuid)
        assert stored
        await cluster.api.store.write(Put(stored.changed(xml=document(), generation=2)))
        await cluster.clock.advance(5)
        assert len(hypervisor.started) == 1
