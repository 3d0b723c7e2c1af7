"""The context, and the components that are opened for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pvcd.clock import VirtualClock
from pvcd.daemon.components import make_context, open_components
from pvcd.declare.context import Component, ComponentKey, Context, Role
from pvcd.plugin.loading import Plugin
from pvcd.plugin.registry import collect, in_order
from pvcd.store.memory import MemoryServer, MemoryTree
from pvcd.testing import minimal_settings

from .conftest import plugin

A, B, C = (ComponentKey[str](name) for name in "abc")
BOTH = (Role.API, Role.NODE)


class House:
    """Components that note when they are opened and closed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def component(
        self, key: ComponentKey[str], *needs: ComponentKey[str], roles: tuple[Role, ...] = BOTH, fails: bool = False
    ) -> Component[str]:
        @contextlib.asynccontextmanager
        async def opening(context: Context) -> AsyncIterator[str]:
            seen = "".join(context[need] for need in needs)
            if fails:
                raise OSError(f"{key.name} is out of order")
            self.lines.append(f"open {key.name}({seen})")
            try:
                yield key.name
            finally:
                self.lines.append(f"close {key.name}({''.join(context[need] for need in needs)})")

        return Component(key, opening, roles, needs)

    def context(self, *components: Component[str], role: Role = Role.NODE) -> Context:
        registry = collect([Plugin("house", plugin(components=components), "given to the test")])
        return make_context(role, minimal_settings(registry), registry, MemoryTree(MemoryServer()), VirtualClock())


async def test_components_open_after_what_they_need_and_close_before() -> None:
    house = House()
    context = house.context(house.component(A, B, C), house.component(B, C), house.component(C))
    async with open_components(context):
        assert (context[A], context[B], context[C]) == ("a", "b", "c")
        assert house.lines == ["open c()", "open b(c)", "open a(bc)"]
    assert house.lines[3:] == ["close a(bc)", "close b(c)", "close c()"]
    assert context.components == {}


async def test_only_the_components_of_the_role_are_opened() -> None:
    house = House()
    components = [house.component(A, roles=(Role.API,)), house.component(B, roles=(Role.NODE,))]
    async with open_components(house.context(*components, role=Role.API)):
        assert house.lines == ["open a()"]


async def test_a_component_that_cannot_be_opened_lets_the_others_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    context = house.context(house.component(A), house.component(B, A, fails=True))
    with pytest.raises(OSError, match="b is out of order"):
        async with open_components(context):
            pass
    assert house.lines == ["open a()", "close a()"]
    assert "cannot open component b of plugin 'house'" in caplog.text


async def test_a_component_that_is_not_open_is_told_by_name_and_role() -> None:
    context = House().context()
    with pytest.raises(LookupError, match="component 'a' is not open in the role 'node'"):
        context[A]


async def test_a_derived_context_shares_all_but_what_is_changed() -> None:
    house = House()
    context = house.context(house.component(A))
    derived = context.derive(user="admin")
    async with open_components(context):
        assert derived[A] == "a"
    assert (context.user, derived.user) == (None, "admin")
    assert derived.store is context.store


def test_an_order_without_needs_is_that_of_the_names() -> None:
    house = House()
    components = [house.component(key) for key in (A, B, C)]
    assert in_order(components) == components


def test_needs_that_go_round_in_a_circle_are_refused() -> None:
    house = House()
    with pytest.raises(TypeError, match="need each other: a, b"):
        in_order([house.component(A, B), house.component(B, A), house.component(C)])


def test_a_need_that_the_role_does_not_have_is_passed_over() -> None:
    anything: Any = ComponentKey("elsewhere")
    house = House()
    component = house.component(A, anything)
    assert in_order([component]) == [component]
