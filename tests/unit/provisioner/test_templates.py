"""The endpoints of templates: what they take, what they refuse and what they show."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pvcd import Create
from pvcd_plugins.ceph.cluster import facts
from pvcd_plugins.ceph.records import Pool, Volume
from pvcd_plugins.provisioner.programs.userdata import InsideRendering
from pvcd_plugins.provisioner.records import EMPTY
from tests.unit.provisioner.conftest import PROFILE, Provisioner

SMALL = {
    "id": 1,
    "name": "small",
    "vcpu_count": 2,
    "vram_mb": 1024,
    "serial": False,
    "vnc": False,
    "vnc_bind": None,
    "node_limit": None,
    "node_selector": None,
    "start_with_node": False,
}
EMPTY_USERDATA = {"id": 0, "name": "empty", "userdata": ""}


# Systems


async def test_a_system_template_is_shown_as_it_was_made_with_its_types(provisioner: Provisioner) -> None:
    reply = await provisioner.do(
        "POST",
        "/template/system",
        name="2cpu-1gb-serial",
        vcpus="2",
        vram="1024",
        serial="true",
        vnc="yes",
        vnc_bind="0.0.0.0",
        node_limit="pvchv1,pvchv2,pvchv1",
        start_with_node="",
    )
    assert reply == {
        "name": "2cpu-1gb-serial",
        "warnings": ["node_limit: there is no node 'pvchv1'.", "node_limit: there is no node 'pvchv2'."],
    }
    expected = SMALL | {
        "name": "2cpu-1gb-serial",
        "serial": True,
        "vnc": True,
        "vnc_bind": "0.0.0.0",
        "node_limit": "pvchv1,pvchv2",
        "start_with_node": True,
    }
    assert await provisioner.get("/template/system/2cpu-1gb-serial") == [expected]
    assert await provisioner.get("/template/system") == [expected]


async def test_a_name_is_an_argument_or_a_part_of_the_path(provisioner: Provisioner) -> None:
    assert await provisioner.do("POST", "/template/system/small", vcpus=2, vram=1024) == {"name": "small"}
    assert await provisioner.get("/template/system") == [SMALL]
    assert await provisioner.do("POST", "/template/network/net200+net300") == {"name": "net200+net300"}
    assert (await provisioner.refused("POST", "/template/network", name="net200 net300"))[0] == (
        "network-template-exists"
    )
    assert (await provisioner.get("/template/network", name="net200 net300"))[0]["name"] == "net200+net300"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"vcpus": None}, "The argument 'vcpus' is missing."),
        ({"vram": None}, "The argument 'vram' is missing."),
        ({"vcpus": "two"}, "vcpus must be a whole number of at least 1 and at most 512; got 'two'."),
        ({"vcpus": "0"}, "vcpus must be a whole number of at least 1 and at most 512; got '0'."),
        ({"vram": "-1"}, "vram must be a whole number of at least 1 and at most 16777216; got '-1'."),
        ({"serial": "maybe"}, "serial must be given alone, or as true or false; got 'maybe'."),
        (
            {"vnc_bind": "localhost"},
            "vnc_bind must be an IP address such as 127.0.0.1; got 'localhost'.",
        ),
        ({"node_selector": "mme"}, "node_selector must be one of (none); got 'mme'."),
        ({"vcpu": "2"}, "There is no argument 'vcpu' here: did you mean 'vcpus'?"),
        ({"name": "a b/c"}, None),
    ],
)
async def test_a_system_template_that_is_not_sound_is_refused(
    provisioner: Provisioner, values: dict[str, Any], sentence: str | None
) -> None:
    asked = {key: value for key, value in ({"name": "small", "vcpus": "2", "vram": "1024"} | values).items() if value}
    code, said = await provisioner.refused("POST", "/template/system", **asked)
    assert code == "invalid-value"
    assert sentence is None or said == sentence
    assert await provisioner.get("/template/system") == []


# Networks


async def test_a_network_template_has_nets_in_the_order_in_which_they_were_added(provisioner: Provisioner) -> None:
    mac = "{prefix}:ff:f6:{vmid}{netid}"
    await provisioner.do("POST", "/template/network", name="nets", mac_template=mac)
    warned = ["There is no network 300 yet. It must exist when a VM is built."]
    added = await provisioner.do("POST", "/template/network/nets/net", vni=300)
    assert added == {"name": "nets", "vni": 300, "warnings": warned}
    assert (await provisioner.do("POST", "/template/network/nets/net/200"))["vni"] == 200
    expected = [{"id": 1, "name": "nets", "mac_template": mac, "networks": [{"vni": 300}, {"vni": 200}]}]
    assert await provisioner.get("/template/network/nets") == expected
    assert await provisioner.get("/template/network/nets/net") == expected
    assert await provisioner.get("/template/network/nets/net/200") == {"vni": 200}
    for path, values in (("/net", {"vni": 200}), ("/net/200", {})):
        assert await provisioner.refused("POST", f"/template/network/nets{path}", **values) == (
            "net-exists",
            "Cannot add net 200 to network template 'nets': it has this net already.",
        )
    assert await provisioner.do("DELETE", "/template/network/nets/net", vni=300) == {"name": "nets", "vni": 300}
    assert await provisioner.do("DELETE", "/template/network/nets/net/200") == {"name": "nets", "vni": 200}
    assert (await provisioner.get("/template/network/nets"))[0]["networks"] == []


async def test_a_net_of_a_network_that_exists_is_no_warning(provisioner: Provisioner) -> None:
    await provisioner.cluster.request("POST", "/api/v1/network", vni=200, description="app", nettype="bridged")
    await provisioner.do("POST", "/template/network/nets")
    assert await provisioner.do("POST", "/template/network/nets/net/200") == {"name": "nets", "vni": 200}


@pytest.mark.parametrize("vni", ["0200", "20", "abc", "0", "16777216", "%2e%2e"])
async def test_only_the_exact_net_is_found(provisioner: Provisioner, vni: str) -> None:
    await provisioner.do("POST", "/template/network/nets")
    await provisioner.do("POST", "/template/network/nets/net/200")
    for method in ("GET", "DELETE"):
        assert (await provisioner.refused(method, f"/template/network/nets/net/{vni}"))[0] == "net-not-found"
    if vni != "20":
        assert (await provisioner.refused("POST", f"/template/network/nets/net/{vni}"))[0] == "invalid-value"


async def test_a_network_template_has_so_many_nets(provisioner: Provisioner) -> None:
    await provisioner.do("POST", "/template/network/nets")
    for vni in range(1, 17):
        await provisioner.do("POST", f"/template/network/nets/net/{vni}")
    assert (await provisioner.refused("POST", "/template/network/nets/net/17"))[0] == "template-full"


async def test_a_mac_template_without_the_vm_is_a_warning(provisioner: Provisioner) -> None:
    reply = await provisioner.do("POST", "/template/network/nets", mac_template="{prefix}:00:00:0{netid}")
    assert "the same MAC addresses" in reply["warnings"][0]
    code, sentence = await provisioner.refused("POST", "/template/network/more", mac_template="{prefix.real}:0:0:0")
    assert code == "invalid-value" and "with {prefix} (52:54:00), {vmid} and {netid} (one" in sentence


# Disks

ROOT = {"pool": "vms", "disk_size": "4", "filesystem": "ext4", "mountpoint": "/"}


async def test_a_storage_template_has_disks_sorted_by_their_ids(provisioner: Provisioner) -> None:
    assert await provisioner.do("POST", "/template/storage/disks") == {"name": "disks"}
    path = "/template/storage/disks/disk"
    await provisioner.do("POST", f"{path}/sdb", pool="vms", disk_size=1)
    await provisioner.do("POST", f"{path}/sdaa", pool="vms", source_volume="golden")
    values = ROOT | {"mountpoint": "//var/./log/", "filesystem_arg": ["-L=root", "-m=1"]}
    added = await provisioner.do("POST", path, disk_id="sda", **values)
    assert added == {
        "name": "disks",
        "disk_id": "sda",
        "warnings": ["There is no pool 'vms' yet. It must exist when a VM is built."],
    }
    bare = {"storage_template": 1, "pool": "vms", "mountpoint": None, "filesystem": None, "filesystem_args": ""}
    first = {
        "id": 4,
        "storage_template": 1,
        "pool": "vms",
        "disk_id": "sda",
        "disk_size_gb": 4,
        "mountpoint": "/var/log",
        "filesystem": "ext4",
        "filesystem_args": "-L=root -m=1",
        "source_volume": None,
    }
    second = bare | {"id": 2, "disk_id": "sdb", "disk_size_gb": 1, "source_volume": None}
    third = bare | {"id": 3, "disk_id": "sdaa", "disk_size_gb": None, "source_volume": "golden"}
    expected = [{"id": 1, "name": "disks", "disks": [first, second, third]}]
    assert await provisioner.get("/template/storage/disks") == expected
    assert await provisioner.get(path) == expected
    assert await provisioner.get(f"{path}/sda") == first
    assert await provisioner.do("DELETE", path, disk_id="sda") == {"name": "disks", "disk_id": "sda"}
    assert await provisioner.do("DELETE", f"{path}/sdaa") == {"name": "disks", "disk_id": "sdaa"}
    assert (await provisioner.get("/template/storage/disks"))[0]["disks"] == [second]
    assert (await provisioner.refused("GET", f"{path}/sda"))[0] == "disk-not-found"
    assert (await provisioner.refused("DELETE", f"{path}/sda"))[0] == "disk-not-found"


async def test_what_is_not_there_yet_is_a_warning(provisioner: Provisioner) -> None:
    async def warnings(disk_id: str, **values: Any) -> Any:
        reply = await provisioner.do("POST", f"/template/storage/disks/disk/{disk_id}", pool="vms", **values)
        return reply.get("warnings")

    await provisioner.do("POST", "/template/storage/disks")
    ending = "yet. It must exist when a VM is built."
    assert await warnings("sda", disk_size=1) == [f"There is no pool 'vms' {ending}"]
    assert await warnings("sdb", source_volume="golden") == [f"There is no pool 'vms' {ending}"]
    numbers = {each.name: 0 for each in fields(facts.Pool) if each.name not in ("name", "applications")}
    said = facts.Pool(name="vms", applications=("rbd",), **numbers)
    await provisioner.context.store.write(Create(Pool(name="vms", facts=said, updated=0.0)))
    assert await warnings("sdc", disk_size=1) is None
    assert await warnings("sdd", source_volume="golden") == [f"There is no volume 'vms/golden' {ending}"]
    await provisioner.context.store.write(Create(Volume(pool="vms", name="golden", id="1", size=1, updated=0.0)))
    assert await warnings("sde", source_volume="golden") is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"disk_size": None}, "The argument 'disk_size' is missing: a disk requires disk_size or source_volume."),
        ({"disk_size": "0"}, "disk_size must be a whole number of at least 1 and at most 1048576; got '0'."),
        ({"disk_size": "4G"}, "disk_size must be a whole number of at least 1 and at most 1048576; got '4G'."),
        ({"pool": None}, "The argument 'pool' is missing."),
        ({"filesystem": "ext5"}, "filesystem must be one of ext2, ext3, ext4, xfs, btrfs, vfat, swap; got 'ext5'."),
        ({"filesystem": None}, "mountpoint requires filesystem."),
        ({"filesystem": None, "mountpoint": None, "filesystem_arg": "-L=x"}, "filesystem_arg requires filesystem."),
        ({"filesystem": "swap"}, "mountpoint cannot be used with filesystem=swap: it cannot be mounted."),
        ({"filesystem_arg": [f"-L={n}" for n in range(17)]}, "filesystem_arg must be given at most 16 times; got 17."),
        (
            {"source_volume": "golden"},
            "source_volume cannot be used with disk_size, filesystem, mountpoint: a copy has the size and content of "
            "its source.",
        ),
        (
            {"mountpoint": "/../../etc"},
            "mountpoint must have parts of letters, digits and . _ + @ : - only, none of them '..'; got '/../../etc'.",
        ),
    ],
)
async def test_a_disk_that_is_not_sound_is_refused(
    provisioner: Provisioner, values: dict[str, Any], sentence: str
) -> None:
    await provisioner.do("POST", "/template/storage/disks")
    asked = {key: value for key, value in (ROOT | values).items() if value is not None}
    assert await provisioner.refused("POST", "/template/storage/disks/disk/sda", **asked) == (
        "invalid-value",
        sentence,
    )
    assert (await provisioner.get("/template/storage/disks"))[0]["disks"] == []


async def test_no_two_disks_have_the_same_place(provisioner: Provisioner) -> None:
    await provisioner.do("POST", "/template/storage/disks")
    path = "/template/storage/disks/disk"
    await provisioner.do("POST", f"{path}/sda", **ROOT)
    for disk_id in ("sda", "vda"):
        sentence = f"Cannot add disk {disk_id!r} to storage template 'disks': it has disk 'sda' already."
        refused = await provisioner.refused("POST", f"{path}/{disk_id}", pool="vms", disk_size=1)
        assert refused == ("disk-exists", sentence)
    same = ROOT | {"mountpoint": "/./"}
    assert await provisioner.refused("POST", f"{path}/sdb", **same) == (
        "disk-exists",
        "Cannot add disk 'sdb' to storage template 'disks': disk 'sda' has the mountpoint '/' already.",
    )
    assert (await provisioner.refused("POST", f"{path}/hda", pool="vms", disk_size=1))[0] == "invalid-value"
    assert (await provisioner.refused("POST", path, disk_id="sda1", pool="vms", disk_size=1))[0] == "invalid-value"


# Userdata


async def test_empty_userdata_is_always_there_and_stays_as_it_is(provisioner: Provisioner) -> None:
    path = "/template/userdata"
    assert await provisioner.get(path) == await provisioner.get(f"{path}/empty") == [EMPTY_USERDATA]
    assert await provisioner.get(path, name="empty") == await provisioner.get(path, limit="^em") == [EMPTY_USERDATA]
    assert await provisioner.get(path, limit="base") == []
    for method, end, values in (
        ("POST", "", {"name": "empty", "data": "x"}),
        ("POST", "/empty", {"data": "x"}),
        ("PUT", "", {"name": "empty", "data": "x"}),
        ("PUT", "/empty", {"data": "x"}),
        ("DELETE", "/empty", {}),
    ):
        code, _ = await provisioner.refused(method, path + end, **values)
        assert code == "userdata-template-fixed", (method, end)
    assert await provisioner.get(path) == [EMPTY_USERDATA]


async def test_userdata_is_kept_to_the_letter_and_replaced(provisioner: Provisioner) -> None:
    text = "#cloud-config\r\nruncmd:\n  - [echo, 'ü & + %41']\n\n"
    path = "/template/userdata"
    assert (await provisioner.do("POST", path, name="base", data=text))["name"] == "base"
    assert (await provisioner.get(f"{path}/base")) == [{"id": 1, "name": "base", "userdata": text}]
    assert [each["name"] for each in await provisioner.get(path)] == ["base", "empty"]
    assert (await provisioner.refused("POST", f"{path}/base", data=""))[0] == "userdata-template-exists"
    await provisioner.do("PUT", f"{path}/base", data="#!/bin/sh\n")
    await provisioner.do("PUT", path, name="base", data="#!/bin/sh\ntrue\n")
    assert (await provisioner.get(f"{path}/base")) == [{"id": 1, "name": "base", "userdata": "#!/bin/sh\ntrue\n"}]
    assert await provisioner.do("DELETE", f"{path}/base") == {"name": "base"}
    assert (await provisioner.refused("PUT", f"{path}/base", data=""))[0] == "userdata-template-not-found"


async def test_userdata_that_cannot_be_rendered_is_refused_with_its_line(provisioner: Provisioner) -> None:
    code, sentence = await provisioner.refused(
        "POST", "/template/userdata/base", data="#cloud-config\n{{ nonsense }}\n"
    )
    assert code == "invalid-value" and "line 2" in sentence.lower() and "nonsense" in sentence
    await provisioner.do("POST", "/template/userdata/base", data="")
    code, sentence = await provisioner.refused("PUT", "/template/userdata/base", data="{% if %}")
    assert code == "invalid-value" and "line 1" in sentence.lower()
    assert (await provisioner.get("/template/userdata/base"))[0]["userdata"] == ""


async def test_what_cloud_init_would_not_understand_is_a_warning(
    provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def warnings(_: object, text: str) -> list[str]:
        return [f"said of {text}"]

    monkeypatch.setattr(InsideRendering, "warnings", warnings)
    path = "/template/userdata"
    assert await provisioner.do("POST", path, name="base", data="{{ vm_name }}") == {
        "name": "base",
        "warnings": ["said of web1"],
    }
    assert (await provisioner.do("PUT", f"{path}/base", data="x"))["warnings"] == ["said of x"]


async def test_userdata_has_a_limit(provisioner: Provisioner) -> None:
    sentence = "data must have at most 262144 bytes; got 262145 bytes."
    for method in ("POST", "PUT"):
        refused = await provisioner.refused(method, "/template/userdata/base", data="ü" * 131072 + "x")
        assert refused == ("invalid-value", sentence)
    await provisioner.do("POST", "/template/userdata/base", data="#" * 262144)


# All of them


async def test_all_templates_are_shown_by_kind_and_limited(provisioner: Provisioner) -> None:
    nothing: dict[str, Any] = {
        "system_templates": [],
        "network_templates": [],
        "storage_templates": [],
        "userdata_templates": [],
    }
    assert await provisioner.get("/template") == nothing | {"userdata_templates": [EMPTY_USERDATA]}
    await provisioner.fill()
    shown = await provisioner.get("/template")
    assert {kind: [each["name"] for each in templates] for kind, templates in shown.items()} == {
        "system_templates": ["small"],
        "network_templates": ["one-nic"],
        "storage_templates": ["root"],
        "userdata_templates": ["base", "empty"],
    }
    assert [each["id"] for templates in shown.values() for each in templates] == [1, 2, 3, 4, EMPTY.id]
    limited = await provisioner.get("/template", limit="^o|l$")
    assert [len(limited[kind]) for kind in nothing] == [1, 1, 0, 0]
    assert (await provisioner.refused("GET", "/template", limit="("))[0] == "invalid-value"


KINDS = {
    "/template/system": {"vcpus": "1", "vram": "1"},
    "/template/network": {},
    "/template/storage": {},
    "/template/userdata": {"data": "x"},
    "/script": {"data": "def install(**kwargs): ..."},
    "/profile": PROFILE,
}


@pytest.mark.parametrize("path", KINDS)
async def test_a_name_in_the_path_is_a_name(provisioner: Provisioner, path: str) -> None:
    await provisioner.fill()
    before = await provisioner.everything()
    for name in ("-x", "a%2fb", "a;b", "%C3%A4", "x" * 129):
        code, sentence = await provisioner.refused("POST", f"{path}/{name}", **KINDS[path])
        assert code == "invalid-value" and sentence.startswith("name must be"), name
    assert await provisioner.everything() == before


@pytest.mark.parametrize("path", KINDS)
async def test_every_kind_is_listed_limited_found_exactly_and_removed(provisioner: Provisioner, path: str) -> None:
    await provisioner.fill()
    kind = path.removeprefix("/template/").removeprefix("/") + ("-template" if "template" in path else "")
    for name in ("web2", "web10", "db"):
        assert (await provisioner.do("POST", path, name=name, **KINDS[path]))["name"] == name
    fixed = [each["name"] for each in await provisioner.get(path) if each["name"] not in ("web2", "web10", "db")]

    async def listed(**values: str) -> list[str]:
        return [each["name"] for each in await provisioner.get(path, **values)]

    assert await listed() == sorted(["db", "web10", "web2", *fixed])
    assert await listed(limit="^web") == ["web10", "web2"]
    assert await listed(name="web2") == ["web2"]
    assert await listed(name="web") == await listed(name="web2", limit="db") == []
    assert (await provisioner.refused("POST", path, name="db", **KINDS[path]))[0] == f"{kind}-exists"
    assert (await provisioner.refused("POST", f"{path}/db", **KINDS[path]))[0] == f"{kind}-exists"
    for name in ("web", "WEB2", "web2%20", "d", "%2e%2e", "x" * 200):
        for method in ("GET", "DELETE"):
            assert (await provisioner.refused(method, f"{path}/{name}"))[0] == f"{kind}-not-found"
    assert await provisioner.do("DELETE", f"{path}/web2") == {"name": "web2"}
    assert await listed(limit="web") == ["web10"]
    assert (await provisioner.refused("DELETE", f"{path}/web2"))[0] == f"{kind}-not-found"
    await provisioner.do("POST", f"{path}/web2", **KINDS[path])
    assert await listed(limit="web") == ["web10", "web2"]


@pytest.mark.parametrize("path", ["/template/network/no/net/200", "/template/storage/no/disk/sda"])
async def test_nothing_is_added_to_what_is_not_there(provisioner: Provisioner, path: str) -> None:
    values = {"pool": "vms", "disk_size": "1"} if "disk" in path else {}
    assert (await provisioner.refused("POST", path, **values))[0].endswith("-template-not-found")
    for method in ("GET", "DELETE"):
        assert (await provisioner.refused(method, path))[0].endswith("-template-not-found")
