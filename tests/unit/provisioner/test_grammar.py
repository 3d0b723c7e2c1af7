"""The syntax of names, disks, MAC templates and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pvcd import Invalid
from pvcd_plugins.provisioner import grammar

GOOD: list[tuple[Callable[[Any], object], str, object]] = [
    (grammar.read_vni, "1", 1),
    (grammar.read_vni, "16777215", 16777215),
    (grammar.read_vnc_bind, "", None),
    (grammar.read_vnc_bind, "0.0.0.0", "0.0.0.0"),
    (grammar.read_vnc_bind, "::0001", "::1"),
    (grammar.read_mac_template, "", None),
    (grammar.read_mac_template, "{prefix}:ff:f6:{vmid}{netid}", "{prefix}:ff:f6:{vmid}{netid}"),
    (grammar.read_mac_template, "{prefix}:FF:F6:{vmid}{netid}", "{prefix}:ff:f6:{vmid}{netid}"),
    (grammar.read_mac_template, "02:00:00:00:0{vmid}:0{netid}", "02:00:00:00:0{vmid}:0{netid}"),
    (grammar.read_mac_template, "{vmid}2:00:00:00:00:01", "{vmid}2:00:00:00:00:01"),
    (grammar.read_disk_id, "sda", "sda"),
    (grammar.read_disk_id, "vdaa", "vdaa"),
    (grammar.read_filesystem_arg, "-L=root", "-L=root"),
    (grammar.read_filesystem_arg, "-m=1", "-m=1"),
    (grammar.read_filesystem_arg, "-O=^has_journal,64bit", "-O=^has_journal,64bit"),
    (grammar.read_filesystem_arg, "--label=a-b_c.d", "--label=a-b_c.d"),
    (grammar.read_filesystem_arg, "-m=reflink=1", "-m=reflink=1"),
    (grammar.read_mountpoint, "/", "/"),
    (grammar.read_mountpoint, "/var/log", "/var/log"),
    (grammar.read_mountpoint, "//var/./log/", "/var/log"),
    (grammar.read_mountpoint, "/./.", "/"),
    (grammar.read_mountpoint, "/.hidden/..x", "/.hidden/..x"),
    (grammar.read_argument, "release=bookworm", "release=bookworm"),
    (grammar.read_argument, "options=a=b=c d", "options=a=b=c d"),
    (grammar.read_argument, "_x1=", "_x1="),
]


@pytest.mark.parametrize(("read", "text", "value"), GOOD)
def test_valid_values_are_read(read: Callable[[Any], object], text: str, value: object) -> None:
    assert read(text) == value


BAD: list[tuple[Callable[[Any], object], list[str]]] = [
    (grammar.read_vni, ["", "0", "01", "+1", "-1", "1.0", "16777216", "9" * 5000, "٣", "abc"]),
    (grammar.read_vnc_bind, ["localhost", "127.0.0.1:5900", "1.2.3", "fe80::1%eth0", "fe80::1%-x", "127.0.0.1 ", "7"]),
    (
        grammar.read_mac_template,
        [
            "{prefix.__class__}:ff:f6:{vmid}{netid}",
            "{prefix!r}:ff:f6:{vmid}{netid}",
            "{prefix:>9}:ff:f6:{vmid}{netid}",
            "{prefix}:ff:f6:{0}{netid}",
            "{prefix}:ff:f6:{}{netid}",
            "{prefix}:ff:f6:{name}{netid}",
            "{{prefix}}:ff:f6:{vmid}{netid}",
            "{prefix}:ff:f6:{vmid}",
            "{prefix}:ff:f6:00:{vmid}{netid}",
            "{prefix}:ff:f6:{vmid}{netid}\n",
            "{prefix}-ff-f6-{vmid}{netid}",
            "{prefix}:ff:f6:{vmid}%s",
            "52:54:00:00:00:YZ",
            "01:00:5e:00:00:{vmid}{netid}",
            "5{vmid}:54:00:00:00:00",
            "{vmid}" * 100_000,
        ],
    ),
    (grammar.read_disk_id, ["", "sd", "hda", "SDA", "sdaaa", "sda1", "sda ", "../sda", "sdä", "s d a"]),
    (
        grammar.read_filesystem_arg,
        [
            "",
            "-L",
            "--force",
            "-L root",
            "-L= root",
            "-L=ro ot",
            "-L=\troot",
            "-L=-F",
            "--label=--force",
            "L=root",
            "---x=1",
            "--=1",
            "-=1",
            "-L=",
            "-d=/etc",
            "--rootdir=/etc",
            "-L=$(id)",
            "-L=`id`",
            "-L=a;b",
            "-L='root'",
            "'-L=root'",
            "-L=a\n",
            "-L=ä",
            "-L=" + "a" * 126,
        ],
    ),
    (
        grammar.read_mountpoint,
        [
            "",
            "var",
            "..",
            "/..",
            "/../../etc",
            "/var/../etc",
            "/a b",
            "/a\n",
            "/ä",
            "/$HOME",
            "/%2e%2e",
            "/a\\b",
            "~root",
            "/a,b",
            "/" + "a" * 255,
        ],
    ),
    (
        grammar.read_argument,
        ["", "release", "=x", "1a=x", "a b=x", "a-b=x", "ä=x", "a.b=x", "vm_name=x", "disks=x", "k" * 65 + "=x"],
    ),
    (grammar.read_argument, ["a=" + "x" * 4097]),
]


@pytest.mark.parametrize(
    ("read", "text"),
    [pytest.param(read, text, id=f"{read.__name__}-{text[:20]!r}") for read, texts in BAD for text in texts],
)
def test_ambiguous_or_dangerous_values_are_refused(read: Callable[[Any], object], text: str) -> None:
    with pytest.raises((ValueError, Invalid)) as caught:
        read(text)
    assert len(str(caught.value)) < 250


def test_a_refused_part_of_the_path_is_named_without_control_characters() -> None:
    with pytest.raises(Invalid) as caught:
        grammar.read_vni("\x1b[2J" + "x" * 5000)
    assert (
        caught.value.sentence.startswith("vni must be a whole number from 1 to 16777215; got '\\x1b[2Jx")
        and len(caught.value.sentence) < 200
    )


def test_arguments_have_different_keys_and_a_limited_total_size() -> None:
    assert grammar.all_different(None) == ()
    assert grammar.all_different(["a=1", "b=2"]) == ("a=1", "b=2")
    with pytest.raises(Invalid, match="got 'a' more than once"):
        grammar.all_different(["a=1", "b=2", "a=3"])
    with pytest.raises(Invalid, match="arg must have at most 65536 characters in all"):
        grammar.all_different([f"a{n}={'x' * 4000}" for n in range(20)])
