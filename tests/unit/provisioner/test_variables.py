"""The variables of a VM: of two with one name the more specific source wins."""

from __future__ import annotations

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.provisioner.grammar import NOT_SHOWN
from pvcd_plugins.provisioner.variables import (
    MAX_SECRETS,
    RESERVED,
    Level,
    Variables,
    arguments_of,
    values_of,
    vm_id_of,
)


@pytest.fixture
def variables() -> Variables:
    return Variables(
        [
            *arguments_of(Level.REQUEST, "request", ["release=trixie", "note=a=b"]),
            *arguments_of(Level.PROFILE, "profile 'web'", ["release=bookworm", "packages=vim,less"]),
            *values_of(Level.TEMPLATE, "system template 'small'", {"vcpus": 2, "vnc_bind": "10.0.0.1"}),
            *values_of(Level.DEFAULT, "default", {"vnc_bind": "127.0.0.1", "vnc": False}),
            *values_of(Level.REQUEST, "request", {"vm_name": "web1"}),
        ]
    )


def test_the_more_specific_source_wins(variables: Variables) -> None:
    assert variables.get("release") == "trixie"
    assert variables.get("packages") == "vim,less"
    assert variables.get("vnc_bind") == "10.0.0.1"
    assert variables.get("vnc") is False
    assert variables.get("nothing") is None
    assert variables.get("nothing", 7) == 7


def test_a_script_gets_only_the_arguments(variables: Variables) -> None:
    assert variables.arguments() == {"release": "trixie", "packages": "vim,less", "note": "a=b"}


def test_userdata_gets_all_values_and_the_arguments_by_name(variables: Variables) -> None:
    values = variables.values()
    assert values["vcpus"] == 2
    assert values["release"] == values["arguments"]["release"] == "trixie"


def test_variables_are_shown_sorted_with_their_sources(variables: Variables) -> None:
    shown = variables.shown()
    assert [each["name"] for each in shown] == ["note", "packages", "release", "vcpus", "vm_name", "vnc", "vnc_bind"]
    assert shown[2] == {"name": "release", "value": "trixie", "source": "request"}
    assert shown[1]["source"] == "profile 'web'"


@pytest.mark.parametrize("name", RESERVED)
def test_an_argument_cannot_have_the_name_of_a_standard_variable(name: str) -> None:
    with pytest.raises(
        Invalid,
        match=f"arg of profile 'web' cannot be '{name}=x': .* {name}|arg of profile 'web' cannot be '{name}=x': {name}",
    ):
        arguments_of(Level.PROFILE, "profile 'web'", [f"{name}=x"])


@pytest.mark.parametrize("argument", ["x", "=x", "a-b=c", "1a=b", "__class__ =x"])
def test_an_invalid_argument_is_refused(argument: str) -> None:
    with pytest.raises(Invalid, match=r"^arg of request must be key=value"):
        arguments_of(Level.REQUEST, "request", [argument])


@pytest.mark.parametrize(
    ("name", "vm_id"), [("web1", 1), ("web", 0), ("db-2.site10", 10), ("a007", 7), ("1web", 1), ("x-9-y", 9)]
)
def test_the_number_of_a_vm_is_the_last_one_in_its_name(name: str, vm_id: int) -> None:
    assert vm_id_of(name) == vm_id


@pytest.mark.parametrize("argument", ["vm_uuid=hunter2", "a-b=hunter2"])
def test_a_secret_that_is_refused_is_not_shown(argument: str) -> None:
    with pytest.raises(Invalid) as caught:
        arguments_of(Level.REQUEST, "request", [argument], secret=True)
    assert f"'{argument.partition('=')[0]}=(not shown)'" in caught.value.sentence
    assert "hunter2" not in caught.value.sentence


@pytest.mark.parametrize(
    "secret", ["non\u00a0breaking", "zero\u200bwidth", "line\u2028separated", "two\nlines", "\x1b[1m"]
)
def test_a_secret_that_an_output_shows_differently_is_refused(secret: str) -> None:
    with pytest.raises(Invalid, match="must be printable characters only") as caught:
        arguments_of(Level.REQUEST, "request", [f"host_key={secret}"])
    assert secret not in caught.value.sentence
    assert arguments_of(Level.REQUEST, "request", [f"motto={secret}"])


def test_secrets_are_found_as_they_are_and_as_python_shows_them() -> None:
    secrets = {"a": "it's \\ quoted", "b": "us", "c": "it's", "d": "", "e": "  "}
    variables = Variables(
        arguments_of(Level.REQUEST, "request", [f"{key}={value}" for key, value in secrets.items()], secret=True)
    )
    assert variables.redacted(f"x{secrets['a']}x {[secrets['a']]!r}") == f'x{NOT_SHOWN}x ["{NOT_SHOWN}"]'
    assert variables.redacted("the bus of us, it's late") == f"the bus of {NOT_SHOWN}, {NOT_SHOWN} late"


def test_a_vm_has_a_limited_number_of_secrets() -> None:
    most = [f"key{n}=secret{n}" for n in range(MAX_SECRETS)]
    assert Variables(arguments_of(Level.REQUEST, "request", most)).redacted("secret63") == NOT_SHOWN
    with pytest.raises(Invalid, match="A VM must have at most 64 secret arguments; got 65"):
        Variables(arguments_of(Level.REQUEST, "request", [*most, "key=secret"]))
