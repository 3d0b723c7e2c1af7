"""The document that site hooks read, the same as variables, and its schema."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from pvcd import Message
from pvcd.declare.hook_schema import FIELDS, schema, schemas
from pvcd.declare.operations import Operation, OperationKind
from pvcd.errors import Conflict
from pvcd.http.replies import Encoded
from pvcd.plugin.loading import load
from pvcd.plugin.registry import Registry, collect
from pvcd.settings import PluginsSection
from pvcd.sitehooks.envelope import envelope, environment

KIND = OperationKind(
    "door-open",
    "Open a door.",
    "api",
    {"door": {"type": "string"}, "wide": {"type": "boolean"}, "key": {"type": "string"}},
    names={"door_name": "door"},
    secrets=frozenset({"key"}),
)
ARGUMENTS = {"door_name": "front", "wide": True, "key": "s3cret"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return collect(load(PluginsSection()))


def told(operation: Operation, kind: OperationKind = KIND, **more: Any) -> Any:
    document = envelope(kind, operation, time=5.0, place="api", user="me") | {"hook": "50-a", "attempt": 1}
    return (
        document
        | {"phase": "fail" if operation.failure else "post", "seconds": 30.0, "directory": "/etc/pvc/hooks"}
        | more
    )


def test_arguments_have_the_names_for_users_and_no_secrets() -> None:
    assert told(Operation("door-open", ARGUMENTS))["arguments"] == {"door": "front", "wide": True}


def test_an_argument_is_told_as_its_operation_says() -> None:
    kind = replace(KIND, redactions={"door": str.upper})
    assert told(Operation("door-open", ARGUMENTS), kind)["arguments"] == {"door": "FRONT", "wide": True}


def test_the_result_is_the_reply() -> None:
    assert told(Operation("door-open", {}, Message(message="Open.")))["result"] == {"message": "Open."}
    assert told(Operation("door-open", {}, Encoded(b'[{"a": 1}]')))["result"] == [{"a": 1}]
    assert told(Operation("door-open", {}, Encoded(b"GIF", "image/gif")))["result"] is None
    assert "result" not in told(Operation("door-open", {}))


def test_a_failure_is_a_sentence_and_a_code_without_internals() -> None:
    refused = told(Operation("door-open", {}, failure=Conflict("It is stuck.", code="door-stuck")))
    assert refused["failure"] == {"message": "It is stuck.", "code": "door-stuck"} and "result" not in refused
    broken = told(Operation("door-open", {}, failure=KeyError("/root/.key")))
    assert broken["failure"] == {"message": "Internal error: KeyError.", "code": "internal-error"}


def test_single_values_are_in_the_environment_too() -> None:
    variables = environment(told(Operation("door-open", ARGUMENTS)))
    assert variables["PVC_OPERATION"] == "door-open" and variables["PVC_PHASE"] == "post"
    assert (variables["PVC_ARGUMENT_DOOR"], variables["PVC_ARGUMENT_WIDE"]) == ("front", "true")
    assert variables["PVC_USER"] == "me" and variables["PVC_DRY_RUN"] == "false"
    assert variables.keys() - {name for name in variables if name.startswith("PVC_")} == {"PATH", "LC_ALL"}
    assert "s3cret" not in str(variables)


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, "two\nlines", "a\0b", "x" * 5000, "\x1b[2J"])
def test_long_or_multiline_values_are_in_the_document_only(value: Any) -> None:
    document = told(Operation("door-open", {"door_name": value}))
    assert document["arguments"] == {"door": value}
    assert "PVC_ARGUMENT_DOOR" not in environment(document)


def test_the_flag_check_makes_a_dry_run() -> None:
    assert told(Operation("door-open", {"check": True}))["dry_run"] is True
    assert told(Operation("door-open", {"check": False}))["dry_run"] is False


def test_the_document_matches_the_schema() -> None:
    for operation in (
        Operation("door-open", ARGUMENTS, Message(message="Open.")),
        Operation("door-open", ARGUMENTS, failure=Conflict("It is stuck.")),
    ):
        jsonschema.validate(told(operation), schema(KIND))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told(Operation("door-open", {"door_name": 5})), schema(KIND))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told(Operation("door-open", {}), phase="later"), schema(KIND))


def test_every_operation_has_a_valid_schema(registry: Registry) -> None:
    all_of_them = schemas(registry.known_operations.values())
    assert {"vm-define", "vm-start", "guest-start", "task-provision", "ceph-volume-resize"} <= set(all_of_them)
    for name, one in all_of_them.items():
        jsonschema.Draft202012Validator.check_schema(one)
        assert one["properties"]["operation"]["const"] == name and set(one["required"]) == set(FIELDS)
        assert "$ref" not in str(one)


def test_every_operation_describes_its_arguments(registry: Registry) -> None:
    for kind in registry.known_operations.values():
        assert kind.doc.endswith("."), kind.name
        assert [name for name, one in kind.arguments.items() if not one.get("description")] == [], kind.name


def test_a_node_death_has_no_pre_phase(registry: Registry) -> None:
    assert registry.known_operations["node-dead"].phases == ("post",)
