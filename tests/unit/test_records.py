"""Records: their paths, versions and documents."""

from __future__ import annotations

from uuid import UUID

import pytest
from pydantic import ValidationError

from pvcd.records import Name, Record

from .conftest import Part, Thing


class Machine(Record, path="/machines/{uuid}"):
    uuid: UUID
    name: Name = "m"


class Only(Record, path="/only/one"):
    value: int = 0


def test_a_path_is_made_of_the_keys() -> None:
    uuid = UUID(int=5)
    assert Machine.at(uuid) == Machine(uuid=uuid).path == f"/machines/{uuid}"
    assert Part.at("a", 3) == Part(name="a", number=3).path == "/things/a/parts/3"
    assert Only.at() == Only().path == "/only/one"


def test_the_number_of_keys_must_be_right() -> None:
    with pytest.raises(TypeError, match=r"Part.at\(\) takes 2 keys"):
        Part.at("a")


@pytest.mark.parametrize(
    ("path", "owner"),
    [("/things/a", Thing), ("/things/a/parts/1", Part), ("/things", None), ("/things/a/parts", None), ("/x/a", None)],
)
def test_a_record_owns_the_paths_of_its_own_form_only(path: str, owner: type[Record] | None) -> None:
    assert [kind for kind in (Thing, Part) if kind.owns(path)] == ([owner] if owner else [])


def test_a_path_of_one_part_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match="two parts at least"):

        class Wrong(Record, path="/things"):
            pass


def test_a_path_that_names_no_field_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match="names 'uuid': no such field"):

        class Wrong(Record, path="/things/{uuid}"):
            name: Name


def test_a_record_is_frozen_and_a_changed_copy_keeps_the_version() -> None:
    thing = Thing.decode(b'{"name": "a"}', 4, 99)
    with pytest.raises(ValidationError, match="frozen"):
        thing.value = 1  # type: ignore[misc]
    changed = thing.changed(value=1)
    assert (changed.value, changed.version, changed.serial) == (1, 4, 99)
    assert (thing.value, Thing(name="b").version) == (0, None)


def test_a_changed_copy_is_checked() -> None:
    with pytest.raises(ValidationError):
        Thing(name="a").changed(value="many")


def test_a_document_says_again_what_was_written_also_what_we_do_not_know() -> None:
    thing = Thing.decode('{"name": "ä+1", "new": {"a": [1, null]}}'.replace("ä", "a").encode(), 0, 1)
    again = Thing.decode(thing.changed(value=2).encode(), 1, 2)
    assert again.value == 2
    assert again.model_extra == {"new": {"a": [1, None]}}


@pytest.mark.parametrize("name", ["a", "web1", "net200+net300", "A.b_c-d", "0", "a" * 128])
def test_names(name: str) -> None:
    assert Thing(name=name).name == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "ä", "a" * 129, "../x"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        Thing(name=name)
