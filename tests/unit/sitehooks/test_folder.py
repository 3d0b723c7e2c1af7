"""The hooks directory: the files that run, and why the others do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvcd.sitehooks.folder import Hook, Unsafe, opened, scan

PHASES = {"vm-start": ("pre", "post", "fail"), "node-dead": ("post",)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "hooks"
    (directory / "vm-start.pre.d").mkdir(parents=True)
    return directory


def hook(root: Path, place: str, mode: int = 0o755, text: str = "#!/bin/sh\n") -> Path:
    path = root / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def found(root: Path, operation: str = "vm-start", phase: str = "pre") -> list[Hook]:
    with opened(root, operation, phase) as hooks:
        return hooks


def reasons(root: Path) -> dict[str, str | None]:
    return {entry.place: entry.reason for entry in scan(root, PHASES)}


def test_hooks_come_in_the_byte_order_of_their_names(root: Path) -> None:
    for name in ("50-b", "05-z.sh", "50-a", "10-_", "50-a.py"):
        hook(root, f"vm-start.pre.d/{name}")
    assert [each.name for each in found(root)] == ["05-z.sh", "10-_", "50-a", "50-a.py", "50-b"]
    assert all(each.unsafe is None for each in found(root))


def test_the_directory_may_be_missing(root: Path) -> None:
    assert found(root) == [] == found(root, "vm-stop")
    assert found(root / "nowhere") == []
    assert scan(root / "nowhere", PHASES) == []


@pytest.mark.parametrize(
    "name", ["README", "50-A", "5-a", "500-a", "50_a", "50-a.SH", "50-a~", "50-", "50-a.b.c", ".50-a"]
)
def test_a_file_of_another_name_is_reported_and_not_run(root: Path, name: str) -> None:
    hook(root, f"vm-start.pre.d/{name}")
    assert found(root) == []
    assert "must have the form 50-name" in str(reasons(root)[f"vm-start.pre.d/{name}"])


def test_a_file_that_is_not_executable_is_disabled_and_reported(root: Path) -> None:
    hook(root, "vm-start.pre.d/50-off", 0o644)
    (root / "vm-start.pre.d/60-folder").mkdir()
    assert found(root) == []
    assert reasons(root) == {
        "vm-start.pre.d/50-off": "it is not executable: enable it with chmod +x",
        "vm-start.pre.d/60-folder": "it is a directory",
    }


def test_a_file_that_others_may_write_is_unsafe(root: Path) -> None:
    for number, mode in enumerate((0o775, 0o757, 0o777)):
        hook(root, f"vm-start.pre.d/1{number}-open", mode)
    assert ["may be written by others" in str(each.unsafe) for each in found(root)] == [True] * 3
    assert "(its mode is 0775): use chmod go-w" in str(reasons(root)["vm-start.pre.d/10-open"])


def test_a_set_user_id_file_is_unsafe(root: Path) -> None:
    hook(root, "vm-start.pre.d/50-suid", 0o4755)
    assert "set-user-ID" in str(found(root)[0].unsafe)


def test_a_symbolic_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    target = hook(tmp_path, "target")
    (root / "vm-start.pre.d/50-link").symlink_to(target)
    assert found(root)[0].unsafe == "is a symbolic link, and those are never followed"
    (root / "vm-start.post.d").symlink_to(root / "vm-start.pre.d")
    with pytest.raises(Unsafe, match="is a symbolic link"):
        found(root, phase="post")


def test_a_special_file_is_unsafe(root: Path) -> None:
    os.mkfifo(root / "vm-start.pre.d/50-pipe", 0o755)
    assert found(root)[0].unsafe == "is not a regular file"


def test_a_directory_that_others_may_write_is_not_used(root: Path) -> None:
    hook(root, "vm-start.pre.d/50-a")
    for place in ("vm-start.pre.d", "."):
        (root / place).chmod(0o777)
        with pytest.raises(Unsafe, match="may be written by others"):
            found(root)
        assert "may be written by others" in str(reasons(root)["vm-start.pre.d/50-a"])
        (root / place).chmod(0o755)
    (root / "vm-start.pre.d").chmod(0o1777)  # what stands in it is run, so being sticky does not help
    with pytest.raises(Unsafe):
        found(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_is_not_run(root: Path) -> None:
    path = hook(root, "vm-start.pre.d/50-a")
    os.chown(path, 12345, 0)
    assert found(root)[0].unsafe == "belongs to user 12345, not to root or user 0"
    os.chown(path, 0, 0)
    os.chown(root, 12345, 0)
    with pytest.raises(Unsafe, match="belongs to user 12345"):
        found(root)


def test_a_file_that_is_swapped_after_the_check_is_not_run(root: Path) -> None:
    path = hook(root, "vm-start.pre.d/50-a", text="looked at")
    with opened(root, "vm-start", "pre") as (one,):
        path.unlink()
        hook(root, "vm-start.pre.d/50-a", text="another")
        assert os.read(one.file, 100) == b"looked at"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one.file)


def test_a_misplaced_directory_is_reported_with_a_suggestion(root: Path) -> None:
    for place in ("vm-strat.pre.d/50-a", "vm-start.before.d/50-a", "node-dead.pre.d/50-a", "notes/a"):
        hook(root, place)
    (root / "vm-stop.pre.d").mkdir()
    hook(root, "README.md", 0o644)
    hook(root, "50-a")
    told = reasons(root)
    assert told["vm-strat.pre.d/50-a"] == "there is no operation 'vm-strat': did you mean 'vm-start'?"
    assert told["vm-start.before.d/50-a"] == "vm-start has no phase 'before', only pre, post, fail"
    assert told["node-dead.pre.d/50-a"] == "node-dead has no phase 'pre', only post"
    assert told["notes/a"] == "its directory must be named like vm-start.pre.d"
    assert "there is no operation 'vm-stop'" in str(told["vm-stop.pre.d"])
    assert told["50-a"] == "it is not a directory such as vm-start.pre.d"
    assert "README.md" not in told


def test_the_number_of_hooks_is_limited(root: Path) -> None:
    for number in range(101):
        hook(root, f"vm-start.pre.d/50-{number}")
    with pytest.raises(Unsafe, match="more than 100 hooks"):
        found(root)
