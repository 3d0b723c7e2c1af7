"""schemathesis sends whatever the API's document allows, and much that it does not, and reads each reply by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import ZooKeeperServer
from tests.servers import ROOT, Api, definition, many_nodes

EXAMPLES = 30
HANG = 20
"""Seconds that no reply may take."""
TOKEN = "t" * 32
ASIDE = "not_a_server_error", "positive_data_acceptance"
"""Checks that know neither 510 nor that what is well-formed may still be refused."""
LOGIN = "/api/v1/auth/login"
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 413, 510]
"""
NAMES = """
[parameters]
"path.vm" = "web1"
"path.node" = "hv1"
"""


def run(api: Api, folder: Path, config: str, *options: str) -> str:
    """Send requests to an API, and return what schemathesis says of them."""
    (folder / "schemathesis.toml").write_text(config)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [f"{api.api}/openapi.json", "--seed", "1", "--no-color", "--max-response-time", str(HANG)]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--request-timeout", "30", *options]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.hostile.schemathesis_checks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=os.environ | hooks, capture_output=True, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-20_000:] + done.stderr.decode(errors="replace")[-2000:]
    return said


def count(said: str) -> int:
    """The number of requests that were sent."""
    found = re.search(r"(\d+) generated", said)
    assert found, said
    return int(found[1])


@pytest.mark.timeout(1800)
def test_every_reply_conforms_to_the_document(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    with many_nodes(tmp_path, zookeeper) as cluster:
        api = cluster.api()
        cluster.nodes(api, "hv1", "hv2")
        for name in ("web1", "db1"):
            api.post("/vm", xml=definition(name))
        options = "-n", str(EXAMPLES), "--checks", "all", "--exclude-path", LOGIN
        # Agents run, which change things by themselves.
        aside = *ASIDE, "ignored_auth", "refused_writes_nothing"
        said = run(api, tmp_path, CONFIG, *options, "--exclude-checks", ",".join(aside))
        assert count(said) > 500
        assert api.send("GET", "").status == 209
        assert " 500 " not in said and "internal-error" not in api.log


@pytest.mark.timeout(1800)
def test_a_refused_request_writes_nothing(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    """To a node and a VM that are there, of which no agent changes anything by itself."""
    with many_nodes(tmp_path, zookeeper) as cluster:
        api = cluster.api()
        agents = cluster.nodes(api, "hv1", "hv2")
        api.post("/vm", xml=definition("web1"), node="hv1")
        api.until(lambda: api.vm("web1")["updated"])
        agents.stop()
        options = "-n", str(EXAMPLES), "--exclude-method", "DELETE", "--exclude-path", LOGIN
        checks = "refused_writes_nothing", "status_code_conformance", "response_schema_conformance"
        said = run(api, tmp_path, CONFIG + NAMES, *options, "--checks", ",".join(checks))
        assert count(said) > 500


@pytest.mark.timeout(1800)
def test_with_authentication_enabled_nothing_is_answered_without_it(tmp_path: Path, zookeeper: ZooKeeperServer) -> None:
    with many_nodes(tmp_path, zookeeper, token=TOKEN) as cluster:
        api = cluster.api()
        options = "-n", "2", "-H", f"X-Api-Key: {TOKEN}", "--checks", "all", "--exclude-checks", ",".join(ASIDE)
        said = run(api, tmp_path, CONFIG, *options)
        assert count(said) > 200
