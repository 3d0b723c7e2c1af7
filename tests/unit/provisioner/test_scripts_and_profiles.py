"""The endpoints of scripts and profiles."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.provisioner.conftest import PROFILE, SCRIPT, Provisioner

OTHER = "import os\n\ndef install(**kwargs):\n    os.getpid()\n"


async def test_a_script_is_kept_to_the_letter_and_replaced(provisioner: Provisioner) -> None:
    assert await provisioner.do("POST", "/script", name="deb", data=SCRIPT) == {"name": "deb"}
    assert await provisioner.get("/script/deb") == [{"id": 1, "name": "deb", "script": SCRIPT}]
    assert (await provisioner.refused("POST", "/script/deb", data=OTHER))[0] == "script-exists"
    assert await provisioner.do("PUT", "/script", name="deb", data=OTHER) == {"name": "deb"}
    assert await provisioner.get("/script/deb") == [{"id": 1, "name": "deb", "script": OTHER}]
    assert await provisioner.do("PUT", "/script/deb", data=SCRIPT) == {"name": "deb"}
    assert (await provisioner.refused("PUT", "/script/other", data=SCRIPT))[0] == "script-not-found"
    assert await provisioner.get("/script") == [{"id": 1, "name": "deb", "script": SCRIPT}]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("def install(**kwargs):\n    x =\n", "Cannot use data as a script: line 2: invalid syntax."),
        ("x = 1\n", "Cannot use data as a script: it has no function install(**kwargs) at its top level."),
        ("#" * 262145, "data must have at most 262144 bytes; got 262145 bytes."),
        (None, "The argument 'data' is missing."),
    ],
)
async def test_what_is_no_script_is_neither_made_nor_put_in_the_place_of_one(
    provisioner: Provisioner, data: str | None, sentence: str
) -> None:
    await provisioner.do("POST", "/script/deb", data=SCRIPT)
    values = {} if data is None else {"data": data}
    for method, name in (("POST", "new"), ("PUT", "deb")):
        assert await provisioner.refused(method, f"/script/{name}", **values) == ("invalid-value", sentence)
    assert await provisioner.get("/script") == [{"id": 1, "name": "deb", "script": SCRIPT}]


async def test_what_python_warns_of_is_passed_on(provisioner: Provisioner) -> None:
    reply = await provisioner.do("POST", "/script/deb", data="def install(**k):\n    return k is 'a'\n")
    assert reply["warnings"] == ['line 2: "is" with a literal. Did you mean "=="?']


async def test_a_profile_is_shown_as_it_was_made(provisioner: Provisioner) -> None:
    await provisioner.fill()
    arguments = ["deb_release=buster", "deb_mirror=http://deb.debian.org/debian?a=b", "packages=a,b c"]
    assert await provisioner.do("POST", "/profile", name="web", **PROFILE, arg=arguments) == {"name": "web"}
    expected = {"name": "web"} | PROFILE | {"arguments": arguments}
    assert await provisioner.get("/profile/web") == await provisioner.get("/profile") == [expected]
    assert await provisioner.do("POST", "/profile/bare", **(PROFILE | {"userdata_template": "empty"})) == {
        "name": "bare"
    }
    (shown,) = await provisioner.get("/profile/bare")
    assert (shown["arguments"], shown["userdata_template"]) == ([], "empty")


async def test_disk_template_is_another_word_for_storage_template(provisioner: Provisioner) -> None:
    await provisioner.fill()
    others = {key: value for key, value in PROFILE.items() if key != "storage_template"}
    for name, words in (("a", ["disk_template"]), ("b", ["disk_template", "storage_template"])):
        await provisioner.do("POST", f"/profile/{name}", **others, **dict.fromkeys(words, "root"))
        assert (await provisioner.get(f"/profile/{name}"))[0]["storage_template"] == "root"
    assert await provisioner.refused("POST", "/profile/c", **PROFILE, disk_template="other") == (
        "invalid-value",
        "storage_template cannot be used with disk_template: they are two names of one argument.",
    )
    assert await provisioner.refused("POST", "/profile/c", **others) == (
        "invalid-value",
        "The argument 'storage_template' is missing.",
    )


@pytest.mark.parametrize("field", PROFILE)
async def test_a_profile_needs_all_that_it_names(provisioner: Provisioner, field: str) -> None:
    await provisioner.fill()
    without: dict[str, Any] = {key: value for key, value in PROFILE.items() if key != field}
    assert (await provisioner.refused("POST", "/profile/web", **without))[0] == "invalid-value"
    code, sentence = await provisioner.refused("POST", "/profile/web", **(PROFILE | {field: "none"}))
    kind = field.replace("_", " ")
    assert (code, sentence) == (f"{kind.replace(' ', '-')}-not-found", f"There is no {kind} 'none'.")
    assert await provisioner.get("/profile") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["release"],
            "arg must be key=value, where the key is a letter or '_', then letters, digits and '_',",
        ),
        (["disks=x"], "arg cannot be 'disks=x': disks is given to every script."),
        (["vm_uuid=x"], "arg of profile 'web' cannot be 'vm_uuid=x': every VM has a variable vm_uuid."),
        (["a=1", "a=1"], "arg must be given once for each key; got 'a' more than once."),
    ],
)
async def test_arguments_that_a_script_could_not_be_given_are_refused(
    provisioner: Provisioner, arguments: list[str], sentence: str
) -> None:
    await provisioner.fill()
    code, said = await provisioner.refused("POST", "/profile/web", **PROFILE, arg=arguments)
    assert code == "invalid-value" and said.startswith(sentence)


PATHS = {
    "system_template": "/template/system/small",
    "network_template": "/template/network/one-nic",
    "storage_template": "/template/storage/root",
    "userdata_template": "/template/userdata/base",
    "script": "/script/deb",
}


@pytest.mark.parametrize("field", PATHS)
async def test_what_a_profile_uses_is_not_removed_and_can_be_afterwards(provisioner: Provisioner, field: str) -> None:
    await provisioner.fill()
    for name in ("web", "db"):
        await provisioner.do("POST", f"/profile/{name}", **PROFILE)
    before = await provisioner.everything()
    code, sentence = await provisioner.refused("DELETE", PATHS[field])
    assert (code, sentence) == (
        "used-by-profile",
        f"Cannot remove {field.replace('_', ' ')} {PROFILE[field]!r}: in use by profiles 'db', 'web'. "
        "Remove the profiles first.",
    )
    assert await provisioner.everything() == before
    for name in ("web", "db"):
        await provisioner.do("DELETE", f"/profile/{name}")
    assert await provisioner.do("DELETE", PATHS[field]) == {"name": PROFILE[field]}


async def test_a_thing_of_one_kind_is_not_kept_by_a_name_of_another_kind(provisioner: Provisioner) -> None:
    await provisioner.fill()
    await provisioner.do("POST", "/script/small", data=SCRIPT)
    await provisioner.do("POST", "/profile/web", **PROFILE)
    assert await provisioner.do("DELETE", "/script/small") == {"name": "small"}
