"""ACLs: an ordered list for each direction, changed as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pvcd_plugins.network import records
from tests.unit.network.conftest import Networks

RULE = "tcp dport 22 accept"


async def add(networks: Networks, description: str, direction: Any = "in", **more: Any) -> Any:
    values = {"description": description, "direction": direction, "rule": RULE} | more
    return await networks.do("POST", "/app/acl", **values)


async def order(networks: Networks, direction: str = "in") -> list[str]:
    acls = await networks.get("/app/acl", direction=direction)
    assert [acl["order"] for acl in acls] == list(range(len(acls)))
    return [acl["description"] for acl in acls]


async def test_an_acl_is_added_shown_and_removed(networks: Networks) -> None:
    await networks.create_app()
    reply = await add(networks, "ssh-in", rule="  tcp   dport 22 accept")
    assert reply == {"message": "ACL 'ssh-in' added to network 'app' (direction 'in', order 0)."}
    shown = {"direction": "in", "order": 0, "description": "ssh-in", "rule": RULE}
    assert await networks.get("/app/acl") == await networks.get("/200/acl/ssh-in") == [shown]
    reply = await networks.do("DELETE", "/app/acl/ssh-in", direction="in")
    assert reply == {"message": "ACL 'ssh-in' removed from network 'app' (direction 'in')."}
    assert await networks.get("/app/acl") == []


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (None, ["a", "b", "c", "new"]),
        (0, ["new", "a", "b", "c"]),
        (1, ["a", "new", "b", "c"]),
        (2, ["a", "b", "new", "c"]),
        (3, ["a", "b", "c", "new"]),
        (4, ["a", "b", "c", "new"]),
        (10**12, ["a", "b", "c", "new"]),
    ],
)
async def test_an_acl_takes_its_place_and_others_move_on(
    networks: Networks, place: int | None, expected: list[str]
) -> None:
    await networks.create_app()
    for description in "abc":
        await add(networks, description)
        await add(networks, description, "out")
    reply = await add(networks, "new", **({} if place is None else {"order": place}))
    assert reply["message"].endswith(f"(direction 'in', order {expected.index('new')}).")
    assert await order(networks) == expected
    assert await order(networks, "out") == ["a", "b", "c"]
    await networks.do("DELETE", "/app/acl/b", direction="in")
    assert await order(networks) == [each for each in expected if each != "b"]


async def test_more_than_ten_are_in_the_order_of_numbers(networks: Networks) -> None:
    await networks.create_app()
    for number in range(12):
        await add(networks, f"acl{number}")
    assert await order(networks) == [f"acl{number}" for number in range(12)]


async def test_the_list_is_limited_by_description_and_direction(networks: Networks) -> None:
    await networks.create_app()
    for description, direction in (("web", "out"), ("ssh", "in"), ("web", "in")):
        await add(networks, description, direction)

    async def listed(path: str = "", **values: str) -> list[tuple[str, str]]:
        acls = await networks.get(f"/app/acl{path}", **values)
        return [(acl["direction"], acl["description"]) for acl in acls]

    assert await listed() == [("in", "ssh"), ("in", "web"), ("out", "web")]
    assert await listed(limit="^w") == await listed("/web") == [("in", "web"), ("out", "web")]
    assert await listed(limit="s", direction="out") == []
    assert await listed("/none") == await listed("/we") == []
    code, sentence = await networks.refused("GET", "/app/acl", direction="both")
    assert (code, sentence) == ("invalid-value", "direction must be one of in, out; got 'both'.")


async def test_a_description_is_once_in_each_direction(networks: Networks) -> None:
    await networks.create_app()
    await add(networks, "ssh")
    code, sentence = await networks.refused("POST", "/app/acl", description="ssh", direction="in", rule=RULE)
    assert (code, sentence) == (
        "acl-exists",
        "Cannot add ACL 'ssh' to network 'app': there is one in direction 'in' already.",
    )
    await add(networks, "ssh", "out")
    await networks.do("DELETE", "/app/acl/ssh", direction="out")
    assert (await networks.refused("DELETE", "/app/acl/ssh", direction="out"))[0] == "acl-not-found"
    assert await order(networks) == ["ssh"]


@pytest.mark.parametrize(
    "values",
    [
        *({"description": name} for name in ("a b", "", "a/b", "-a", "x" * 129, "a\n")),
        *({"direction": direction} for direction in ("", "IN", "inward", "both")),
        *({"order": order} for order in ("-1", "x", "1.5", "")),
        *({"rule": rule} for rule in ("", "x" * 1001, "tcp dport 22", "accept\x00drop", "accept\ndrop")),
        {"direction": None},
        {"rule": None},
        {"description": None},
        {"rules": "x"},
    ],
)
async def test_what_makes_no_acl_is_refused(networks: Networks, values: dict[str, str | None]) -> None:
    await networks.create_app()
    given = {"description": "ssh", "direction": "in", "rule": RULE} | values
    code, _ = await networks.refused(
        "POST", "/app/acl", **{key: value for key, value in given.items() if value is not None}
    )
    assert code == "invalid-value"
    assert await networks.get("/app/acl") == []


async def test_the_direction_of_what_is_removed_must_be_given(networks: Networks) -> None:
    await networks.create_app()
    await add(networks, "ssh")
    assert (await networks.refused("DELETE", "/app/acl/ssh"))[1] == "The argument 'direction' is missing."


async def test_the_packet_filter_is_only_asked_of_rules_that_could_be_stored(networks: Networks) -> None:
    await networks.do("POST", "", vni=100, description="site", nettype="bridged")
    values = {"description": "ssh", "direction": "in", "rule": RULE}
    assert (await networks.refused("POST", "/site/acl", **values))[0] == "network-not-managed"
    assert (await networks.refused("POST", "/none/acl", **values))[0] == "network-not-found"
    assert await networks.get("/site/acl") == []
    assert networks.firewall.checked == []


async def test_none_is_lost_when_many_are_added_and_removed_at_once(networks: Networks) -> None:
    await networks.create_app()
    for number in range(5):
        await add(networks, f"old{number}")
    asked = [
        networks.ask("POST", "/app/acl", description=f"new{number}", direction="in", rule=RULE, order=0)
        for number in range(10)
    ]
    asked += [networks.ask("DELETE", f"/app/acl/old{number}", direction="in") for number in range(5)]
    replies = asyncio.gather(*asked)
    while not replies.done():
        await networks.cluster.advance(0.1)
    assert {reply.status for reply in await replies} == {200}
    assert sorted(await order(networks)) == [f"new{number}" for number in range(10)]


async def test_there_is_a_limit_that_the_store_can_take(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    await networks.create_app()
    monkeypatch.setattr(records, "MAX_LIST_BYTES", 1500)
    await add(networks, "long", rule=f"{'x' * 990} accept")
    values = {"description": "more", "direction": "in", "rule": f"{'x' * 990} accept"}
    code, sentence = await networks.refused("POST", "/app/acl", **values)
    assert (code, sentence) == (
        "network-full",
        "Cannot add ACL 'more' to network 'app': the limit is reached with 1 ACLs.",
    )
