"""Declarations: everything is derived once, and a mistake is refused with the name of the function."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from pvcd.http.parameters import Document, Flag, Parameter, Path, Place, Value
from pvcd.http.replies import Message
from pvcd.http.routes import Route, Routes
from pvcd.http.values import document_of

if TYPE_CHECKING:
    from pvcd.declare.context import Context  # type: ignore[import-not-found,unused-ignore]


class State(StrEnum):
    START = "start"
    STOP = "stop"
    FAIL = "fail"


class Colour(Enum):
    RED = "red"


VMName = Annotated[str, Path("Name or UUID of the VM")]
Wanted = Annotated[State, Value("The state to go to", choices=("start", "stop"))]
Limit = Annotated[list[str] | None, Value("Nodes it may run on", name="limit", separator=",")]
Restart = Annotated[bool, Flag("Restart it")]
NoAuto = Annotated[bool, Flag("Do not", name="no-autostart")]
Xml = Annotated[str, Document("Libvirt domain XML")]
Names = Annotated[list[str], Value("Name servers", name="name_server", repeated=True)]


def only(routes: Routes) -> Route:
    (route,) = routes
    return route


def parameter(route: Route, key: str) -> Parameter:
    return next(each for each in route.parameters if each.key == key)


def declare(function: Callable[..., Any], path: str = "", **more: Any) -> Route:
    routes = Routes("/x", tag="X")
    routes.post(path, **more)(function)
    return only(routes)


def test_a_route_has_everything_that_was_declared() -> None:
    routes = Routes("/api/v1/vm", tag="Virtual machines")

    @routes.post("/{vm}/state", operation="vm-{state}")
    async def set_state(context: Context, vm: VMName, state: Wanted) -> Message:
        """Set a VM to a state.
        Setting the state that holds has no effect.

        More.
        """
        return Message(message="")

    route = only(routes)
    assert route.name == "POST /api/v1/vm/{vm}/state"
    assert (route.method, route.path, route.tag, route.status) == ("POST", "/api/v1/vm/{vm}/state", routes.tag, 200)
    assert route.doc == "Set a VM to a state. Setting the state that holds has no effect."
    assert route.function is set_state
    assert route.returns is Message
    assert route.operations == ("vm-start", "vm-stop")
    vm, state = route.parameters
    assert (vm.name, vm.place, vm.doc, vm.required, vm.names) == (
        "vm",
        Place.PATH,
        "Name or UUID of the VM",
        True,
        True,
    )
    assert (state.place, state.type, state.choices, state.required) == (Place.VALUE, State, ("start", "stop"), True)


def test_each_method_declares_in_order() -> None:
    routes = Routes("/x", tag="X")

    async def anything(context: Any) -> Message:
        """Do it."""
        return Message(message="")

    for method in (routes.get, routes.post, routes.put, routes.delete):
        assert method(status=209)(anything) is anything
    assert [route.name for route in routes] == ["GET /x", "POST /x", "PUT /x", "DELETE /x"]
    assert {route.status for route in routes} == {209}
    assert len(routes) == 4


def test_a_route_is_frozen() -> None:
    async def anything(context: Any) -> Message:
        """Do it."""
        return Message(message="")

    with pytest.raises(AttributeError):
        declare(anything).method = "PUT"  # type: ignore[misc]


def test_defaults_and_names_of_arguments() -> None:
    async def define(
        context: Any,
        *,
        xml: Xml,
        limit: Limit,
        no_auto: NoAuto,
        restart: Restart = True,
        name_server: Names | None = None,
    ) -> Message:
        """Define."""
        return Message(message="")

    route = declare(define)
    assert document_of(route.parameters) is parameter(route, "xml")
    assert parameter(route, "xml").required
    assert [(each.name, each.required, each.default) for each in route.parameters[1:]] == [
        ("limit", False, None),
        ("no-autostart", False, False),
        ("restart", False, True),
        ("name_server", False, None),
    ]
    assert parameter(route, "limit").many
    assert parameter(route, "name_server").many
    assert not parameter(route, "restart").many


def test_choices_follow_from_the_type() -> None:
    async def pick(
        context: Any,
        a: Annotated[State | None, Value("a")],
        b: Annotated[Literal["in", "out"], Value("b")],
        c: Annotated[list[State], Value("c", separator=",")],
        d: Annotated[str, Value("d")],
    ) -> Message:
        """Pick."""
        return Message(message="")

    states = ("start", "stop", "fail")
    assert [each.choices for each in declare(pick).parameters] == [states, ("in", "out"), states, ()]


def test_constraints_stay_on_the_type() -> None:
    async def size(context: Any, vcpus: Annotated[int, Value("vCPUs"), Field(ge=1)]) -> Message:
        """Size."""
        return Message(message="")

    assert parameter(declare(size), "vcpus").adapter.json_schema() == {"type": "integer", "minimum": 1}


def test_an_operation_is_named_after_the_arguments() -> None:
    async def act(
        context: Any,
        action: Annotated[Literal["migrate", "unmigrate"] | None, Value("a")],
        colour: Annotated[Colour, Value("b")] = Colour.RED,
    ) -> Message:
        """Act."""
        return Message(message="")

    route = declare(act, operation="vm-{action}-{colour}")
    assert route.operations == ("vm-migrate-red", "vm-unmigrate-red")
    assert route.operation_for({"action": "migrate", "colour": Colour.RED}) == "vm-migrate-red"
    assert route.operation_for({"action": None, "colour": Colour.RED}) is None
    assert declare(act, operation="vm-act").operation_for({}) == "vm-act"
    assert declare(act, operation="vm-act").operations == ("vm-act",)
    assert declare(act).operation_for({}) is None
    assert declare(act).operations == ()


async def no_docstring(context: Any) -> Message:
    return Message(message="")


async def no_return(context: Any):  # type: ignore[no-untyped-def]
    """Do."""


async def no_marker(context: Any, vm: str) -> Message:
    """Do."""
    return Message(message="")


async def no_annotation(context: Any, vm) -> Message:  # type: ignore[no-untyped-def]
    """Do."""
    return Message(message="")


async def two_markers(context: Any, vm: Annotated[str, Value("a"), Document("b")]) -> Message:
    """Do."""
    return Message(message="")


async def no_context() -> Message:
    """Do."""
    return Message(message="")


def not_async(context: Any) -> Message:
    """Do."""
    return Message(message="")


async def path_field(context: Any, vm: VMName) -> Message:
    """Do."""
    return Message(message="")


async def same_name(context: Any, a: Annotated[str, Value("a", name="b")], b: Annotated[str, Value("b")]) -> Message:
    """Do."""
    return Message(message="")


async def two_documents(context: Any, a: Xml, b: Xml) -> Message:
    """Do."""
    return Message(message="")


async def number_in_path(context: Any, vm: Annotated[int, Path("VNI")]) -> Message:
    """Do."""
    return Message(message="")


async def flag_of_text(context: Any, force: Annotated[str, Flag("Force")]) -> Message:
    """Do."""
    return Message(message="")


async def list_without_separator(context: Any, a: Annotated[list[str], Value("a")]) -> Message:
    """Do."""
    return Message(message="")


async def repeated_without_list(context: Any, a: Annotated[str, Value("a", repeated=True)]) -> Message:
    """Do."""
    return Message(message="")


async def impossible_choice(context: Any, a: Annotated[State, Value("a", choices=("start", "jump"))]) -> Message:
    """Do."""
    return Message(message="")


async def unknown_type(context: Any, a: Annotated[Nowhere, Value("a")]) -> Message:  # type: ignore[name-defined]  # noqa: F821
    """Do."""
    return Message(message="")


async def secret(context: Any, key: Annotated[str, Value("A key", secret=True)]) -> Message:
    """Do."""
    return Message(message="")


async def listed(context: Any, key: Annotated[list[str], Value("Keys", separator=",")]) -> Message:
    """Do."""
    return Message(message="")


class Odd:
    """No type of pydantic."""


async def odd_type(context: Any, a: Annotated[Odd, Value("a")]) -> Message:
    """Do."""
    return Message(message="")


@pytest.mark.parametrize(
    ("function", "path", "reason"),
    [
        (no_docstring, "", "no docstring"),
        (no_return, "", "no return annotation"),
        (no_marker, "", "'vm' has no Path, Value, Flag or Document"),
        (no_annotation, "", "'vm' has no Path, Value, Flag or Document"),
        (two_markers, "", "'vm' has no"),
        (no_context, "", "first parameter must be the context"),
        (not_async, "", "async"),
        (path_field, "", "'vm' must be both"),
        (path_field, "/{vm}/{node}", "'node' must be both"),
        (same_name, "", "named 'b'"),
        (two_documents, "", "only one"),
        (number_in_path, "/{vm}", "'vm' must be of the type str"),
        (flag_of_text, "", "'force' must be of the type bool"),
        (list_without_separator, "", "must be a list if"),
        (repeated_without_list, "", "must be a list if"),
        (impossible_choice, "", "'a' cannot be 'jump'"),
        (unknown_type, "", "Nowhere"),
        (odd_type, "", "Odd"),
        (secret, "/{key}", "'key' cannot be a part of the path /x/{key}"),
        (listed, "/{key}", "'key' cannot be a part of the path /x/{key}"),
    ],
)
def test_a_mistake_is_refused_at_the_declaration(function: Callable[..., Any], path: str, reason: str) -> None:
    routes = Routes("/x", tag="X")
    with pytest.raises(TypeError, match=reason) as caught:
        routes.get(path)(function)
    assert function.__name__ in str(caught.value)
    assert len(routes) == 0


@pytest.mark.parametrize("operation", ["vm-{vm}", "vm-{nothing}", "vm-{limit}"])
def test_an_operation_can_only_name_parameters_with_choices(operation: str) -> None:
    async def act(context: Any, vm: VMName, limit: Annotated[list[State], Value("a", separator=",")]) -> Message:
        """Act."""
        return Message(message="")

    with pytest.raises(TypeError, match="not a parameter with choices"):
        declare(act, "/{vm}", operation=operation)
