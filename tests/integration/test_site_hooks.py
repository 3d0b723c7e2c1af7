"""Site hooks around the operations of real daemons, and the command `pvcd hooks`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import Cluster, Guests

SECONDS = 60.0


class Hooks:
    """The hooks directory of the sandbox, and `pvcd hooks` there."""

    def __init__(self, cluster: Cluster) -> None:
        self.directory = cluster.directory / "hooks"
        self._config = cluster.directory / "pvc-api.yaml"

    def add(self, place: str, text: str) -> Path:
        path = self.directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def command(self, *arguments: str, status: int = 0) -> str:
        argv = [sys.executable, "-m", "pvcd", "hooks", *arguments]
        environment = {**os.environ, "PVC_CONFIG_FILE": str(self._config)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def runs(self, *words: str) -> list[list[str]]:
        """The lines of the log that hold all these words."""
        lines = self.command("log").splitlines()
        return [line.split() for line in lines if all(word in line.split() for word in words)]


def answers(cluster: Cluster) -> bool:
    """Return whether there is an API server again."""
    try:
        return cluster.send("GET", "").status == 209
    except OSError:
        return False


@pytest.fixture
def hooks(cluster: Cluster) -> Iterator[Hooks]:
    made = Hooks(cluster)
    yield made
    shutil.rmtree(made.directory, ignore_errors=True)


def test_a_hook_refuses_and_its_changes_apply_at_once(cluster: Cluster, guests: Guests, hooks: Hooks) -> None:
    path = hooks.add("vm-define.pre.d/50-policy", 'echo "no VMs on a $(date +%A)" >&2; exit 1')
    status, reply = cluster.ask("POST", "/vm", xml=guests.sector("web1"))
    assert status == 510 and reply["code"] == "hook-refused"
    assert reply["message"].startswith(
        "Cannot do 'vm-define': site hook 'vm-define.pre.d/50-policy' refused it: no VMs on a "
    )
    assert cluster.get("/vm") == []
    path.chmod(0o644)
    assert "does not run: it is not executable" in hooks.command("list")
    cluster.post("/vm", xml=guests.sector("web1"))
    path.chmod(0o755)
    cluster.delete("/vm/web1")
    assert len(hooks.runs("failed", "vm-define.pre.d/50-policy")) == 1


def test_a_node_runs_its_hooks_before_it_starts_a_guest(cluster: Cluster, guests: Guests, hooks: Hooks) -> None:
    path = hooks.add("guest-start.pre.d/50-licence", 'echo "no licence for $PVC_ARGUMENT_VM" >&2; exit 1')
    for name in ("guest-start.post.d/50-told", "guest-end.post.d/50-told", "vm-start.post.d/50-told"):
        hooks.add(name, "cat")
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.post("/vm/web1/state", state="start")
    said = "Cannot do 'guest-start': site hook 'guest-start.pre.d/50-licence' refused it: no licence for web1."
    cluster.until(lambda: cluster.vm("web1")["failed_reason"] == said, SECONDS)
    assert not cluster.vm("web1")["running"]
    path.unlink()
    cluster.until(lambda: cluster.vm("web1")["running"], SECONDS)
    cluster.post("/vm/web1/state", state="stop")
    for place in ("vm-start", "guest-start", "guest-end"):
        cluster.until(lambda place=place: hooks.runs("ok", f"{place}.post.d/50-told"), SECONDS)  # type: ignore[misc]
    (run,) = hooks.runs("ok", "guest-end.post.d/50-told")
    assert '\\"vm\\":\\"web1\\"' in hooks.command("log", run[0])


def test_pending_notifications_of_a_killed_daemon_are_sent_by_the_next_one(
    cluster: Cluster, guests: Guests, hooks: Hooks
) -> None:
    hooks.add("vm-define.post.d/50-slow", '[ "$PVC_ATTEMPT" -gt 1 ] || sleep 1000')
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.until(lambda: hooks.runs("running", "vm-define.post.d/50-slow"), SECONDS)
    cluster.kill("api", signal.SIGKILL)
    cluster.until(lambda: hooks.runs("ok", "vm-define.post.d/50-slow", "2)"), SECONDS)
    cluster.until(lambda: answers(cluster), SECONDS)


def test_hooks_are_tested_inspected_and_repeated_by_hand(cluster: Cluster, hooks: Hooks) -> None:
    assert "There are no site hooks in" in hooks.command("list")
    assert "no operation 'vm-defin': did you mean 'vm-define'?" in hooks.command("schema", "vm-defin", status=2)
    assert '"const": "vm-define"' in hooks.command("schema", "vm-define")
    assert "guest-start (node; pre, post, fail): A node starts the guest of a VM." in hooks.command("operations")
    hooks.add("vm-start.pre.d/10-shows", 'echo "$PVC_ARGUMENT_VM $PVC_DRY_RUN"')
    hooks.add("vm-start.pre.d/20-refuses", "echo no >&2; exit 1")
    hooks.add("vm-start.pre.d/30-never", "exit 0")
    said = hooks.command("run", "vm-start", "pre", "--argument", "vm=web1", "--dry-run", status=1)
    assert "10-shows: ok" in said and "web1 true\n" in said and "20-refuses: no (" in said and "30-never" not in said
    said = hooks.command("run", "vm-start", "pre", "--hook", "10-shows", "--argument", "vm=01")
    assert "01 false\n" in said
    for wrong, sentence in (
        (("vm-start", "pre", "--argument", "vmm=1"), "vm-start has no argument 'vmm': did you mean 'vm'?"),
        (("node-dead", "pre"), "phase of node-dead must be one of post; got 'pre'."),
        (("vm-stop", "pre"), "There is no site hook vm-stop.pre.d/* in"),
    ):
        assert sentence in hooks.command("run", *wrong, status=2)
    assert "There is no run of a hook whose id begins with 'zzz'" in hooks.command("retry", "zzz", status=2)


def test_a_run_is_repeated_with_its_input(cluster: Cluster, guests: Guests, hooks: Hooks) -> None:
    path = hooks.add("vm-define.post.d/50-flaky", 'echo "try $PVC_ATTEMPT"; exit 7')
    cluster.post("/vm", xml=guests.sector("web1"))
    cluster.until(lambda: hooks.runs("failed", "vm-define.post.d/50-flaky"), SECONDS)
    (run,) = hooks.runs("failed", "vm-define.post.d/50-flaky")
    assert "it ended with the status 7" in hooks.command("log", run[0])
    path.write_text('#!/bin/sh\necho "try $PVC_ATTEMPT of $(grep -c web1)"\n')
    assert "try 2 of 1" in hooks.command("retry", run[0])
    assert hooks.runs("ok", "vm-define.post.d/50-flaky")[0][0] == run[0]
    assert hooks.runs("failed", "vm-define.post.d/50-flaky") == []


def test_the_api_document_describes_the_input_of_hooks(cluster: Cluster) -> None:
    document: Any = cluster.get("/openapi.json")
    names = [
        name
        for methods in document["paths"].values()
        for operation in methods.values()
        for name in operation.get("x-pvc-operations", ())
    ]
    assert "vm-define" in names
    for name in [*names, "guest-start", "task-provision"]:
        assert document["components"]["schemas"][f"hook.{name}"]["properties"]["operation"]["const"] == name
