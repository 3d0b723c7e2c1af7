"""pvc.vm.host_access is a list of known grants, and of directories for `files`."""

from typing import Any

import pytest

from pvcd.settings import SettingsError, build
from pvcd_plugins.vm.policy import HostAccess
from pvcd_plugins.vm.settings import SECTION, VMSettings
from tests.servers import settings


def access(value: Any) -> HostAccess:
    values = {"host_access": value} if value is not ... else {}
    return build(settings("127.0.0.1:1", 1, vm=values), [SECTION]).of(VMSettings).access


@pytest.mark.parametrize("value", [..., []])
def test_nothing_is_granted_by_default(value: Any) -> None:
    assert access(value) == HostAccess(frozenset(), ())


def test_names_and_directories_are_granted() -> None:
    given = ["hostdev", {"files": ["/srv/images", "/srv/iso"]}, "vnc-open", {"files": ["/mnt"]}]
    assert access(given) == HostAccess(frozenset({"hostdev", "files", "vnc-open"}), ("/srv/images", "/srv/iso", "/mnt"))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (["hostdve"], "must list grants such as hostdev, vnc-open and files: [/srv/images]; got 'hostdve'."),
        (
            [{"hostdev": ["/srv"]}],
            "must list grants such as hostdev, vnc-open and files: [/srv/images]; got {'hostdev'",
        ),
        (["files"], "files must list directories, such as files: [/srv/images]."),
        ([{"files": ["srv"]}], "files must list absolute paths without '..'; got 'srv'."),
        ([{"files": ["/srv/../etc"]}], "files must list absolute paths without '..'; got '/srv/../etc'."),
        ("hostdev", "must be a list."),
        ({"files": ["/srv"]}, "must be a list."),
    ],
)
def test_a_mistake_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        access(value)
    (said,) = caught.value.sentences
    assert said.startswith(f"pvc.vm.host_access: {sentence}"), said


@pytest.mark.parametrize("value", [[3], [["hostdev"]], [{"files": "/srv"}], [{"files": [3]}], [None]])
def test_other_kinds_of_values_are_refused(value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        access(value)
    assert all(sentence.startswith("pvc.vm.host_access.") for sentence in caught.value.sentences)
