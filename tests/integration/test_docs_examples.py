"""Every curl example of the documentation, sent to a running cluster; each answers as the documentation says.

An example is a code block with lines that begin with `curl`. All must succeed; if a JSON block follows at once, it is
the last one's answer, and one with a `code` is a failure. `<!-- not run: why -->` before a block excuses it.

The pages of IN_ORDER are followed from top to bottom, on a cluster with the network `app` alone, as of `make run`.
Each block of another page stands alone. It finds the VM `web1` defined and the VM `hello` running, unless it defines
`web1` itself, the network `app`, and what PROVISIONER has below.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from .cluster import Cluster, Guests
from .provisioner import OVER, SECONDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FILES = ROOT / "docs" / "examples"
ADDRESS = "http://127.0.0.1:7370/api/v1"
IN_ORDER = ("getting-started.md", "networks.md", "provisioner.md")
MOST_NOT_RUN = 2
"""Blocks that this cluster cannot answer: a login, as it asks for no tokens, which tests/integration/test_auth.py runs;
and requests to a plugin that it has not, which tests/unit/test_docs.py sends."""


@dataclass(frozen=True)
class Example:
    """One code block of a page."""

    page: str
    line: int
    text: str
    answer: Any = None
    not_run: bool = False

    @property
    def commands(self) -> list[list[str]]:
        """The argument vectors of its lines; a line that ends with a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line) for line in lines if line.startswith("curl ")]


def examples_of(name: str, text: str) -> list[Example]:
    found = []
    tokens = [token for token in MarkdownIt().parse(text) if token.type != "inline"]
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.type in ("fence", "code_block") and re.search(r"^curl ", token.content, re.MULTILINE):
            answer = json.loads(after.content) if after and after.type == "fence" and after.info == "json" else None
            not_run = before is not None and before.type == "html_block" and before.content.startswith("<!-- not run: ")
            line = token.map[0] + 1 if token.map else 0
            found.append(Example(name, line, token.content, answer, not_run))
    return found


EXAMPLES = [example for page in PAGES for example in examples_of(page.name, page.read_text())]
RUN = [example for example in EXAMPLES if not example.not_run]
ALONE = [example for example in RUN if example.page not in IN_ORDER]


APP = {
    "vni": "200",
    "description": "app",
    "nettype": "managed",
    "ip4_network": "10.20.0.0/24",
    "ip4_gateway": "10.20.0.1",
    "dhcp4": "on",
    "dhcp4_start": "10.20.0.100",
    "dhcp4_end": "10.20.0.199",
}

PROVISIONER: tuple[tuple[str, dict[str, str]], ...] = (
    ("template/system/2cpu-1gb", {"vcpus": "2", "vram": "1024", "serial": "on"}),
    ("template/network/net200", {}),
    ("template/network/net200/net/200", {}),
    ("template/storage/root-var", {}),
    (
        "template/storage/root-var/disk/sda",
        {"pool": "vms", "disk_size": "1", "filesystem": "ext4", "mountpoint": "/"},
    ),
    (
        "template/storage/root-var/disk/sdb",
        {"pool": "vms", "disk_size": "1", "filesystem": "ext4", "mountpoint": "/var"},
    ),
    ("template/userdata/base", {"data": (FILES / "userdata.yaml").read_text()}),
    ("script/debian", {"data": (FILES / "install.py").read_text()}),
    (
        "profile/web",
        {
            "system_template": "2cpu-1gb",
            "network_template": "net200",
            "storage_template": "root-var",
            "userdata_template": "base",
            "script": "debian",
            "arg": "packages=nginx",
        },
    ),
)
"""The requests that prepare the examples of the provisioner, below /provisioner."""
KINDS = ("profile", "script", "template/system", "template/network", "template/storage", "template/userdata")
"""The kinds, in the order in which they can be removed."""


def prepare(cluster: Cluster, guests: Guests, text: str) -> None:
    """Have the VMs and the network that a block speaks of."""
    if re.search(r"/api/v1/(network|provisioner)", text):
        cluster.post("/network", **APP)
    if "/api/v1/provisioner" in text:
        for path, values in PROVISIONER:
            cluster.post(f"/provisioner/{path}", **values)
    if "/vm/hello" in text:
        cluster.post("/vm", xml=guests.sector("hello"))
        cluster.post("/vm/hello/state", state="start")
        cluster.until_state("hello", "start", True)
    if re.search(r"/vm/(web1|3f1c0b1e)", text):
        cluster.post("/vm", xml=(FILES / "web1.xml").read_text())


def send(command: list[str], api: str, folder: Path) -> tuple[str, str]:
    """Run curl; return its output and the status of the reply."""
    argv = [part.replace(ADDRESS, api) for part in command]
    argv += ["--silent", "--show-error", "--write-out", "\n%{http_code}"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return body, status


def follow(examples: Sequence[Example], cluster: Cluster, folder: Path) -> None:
    """Send what the blocks say, one after another; wait for each task that they start, which must succeed."""
    shutil.copytree(FILES, folder, dirs_exist_ok=True)
    for example in examples:
        place = f"{example.page}:{example.line}"
        refused = isinstance(example.answer, dict) and "code" in example.answer
        body = status = ""
        for number, command in enumerate(example.commands, 1):
            is_last = number == len(example.commands)
            body, status = send(command, cluster.api, folder)
            expected = str(example.answer.get("status", 510)) if refused and is_last else "2.."
            assert re.fullmatch(expected, status), f"{place}: {body}"
            if command[-1] != "check" and f"{ADDRESS}/provisioner/create" in command:
                wait_for_task(cluster, json.loads(body)["task_id"])
        if example.answer is not None:
            assert json.loads(body) == example.answer, place


def wait_for_task(cluster: Cluster, id: str) -> None:
    """Wait until a task has succeeded."""
    cluster.until(lambda: cluster.get(f"/provisioner/status/{id}")["state"] in OVER, SECONDS)
    task = cluster.get(f"/provisioner/status/{id}")
    assert task["state"] == "SUCCESS", task


@pytest.mark.parametrize("example", ALONE, ids=lambda example: f"{example.page}:{example.line}")
def test_a_curl_example_is_answered_as_the_documentation_says(
    example: Example, cluster: Cluster, guests: Guests, tmp_path: Path
) -> None:
    prepare(cluster, guests, example.text)
    try:
        follow([example], cluster, tmp_path)
    finally:
        become_ready(cluster)


@pytest.mark.parametrize("page", IN_ORDER)
def test_the_curl_examples_of_a_page_work_in_their_order(page: str, cluster: Cluster, tmp_path: Path) -> None:
    cluster.post("/network", **APP)
    try:
        follow([example for example in RUN if example.page == page], cluster, tmp_path)
    finally:
        become_ready(cluster)


def become_ready(cluster: Cluster) -> None:
    """Undo a flush, which waits for its guests; and forget the networks and all of the provisioner."""
    for vm in cluster.get("/vm"):
        cluster.ask("DELETE", f"/vm/{vm['name']}", delete_disks="true")
    for network in cluster.get("/network"):
        cluster.ask("DELETE", f"/network/{network['vni']}")
    for kind in KINDS:
        for each in cluster.get(f"/provisioner/{kind}"):
            cluster.ask("DELETE", f"/provisioner/{kind}/{each['name']}")
    if cluster.get("/node/pvchv1/domain-state")["domain_state"] != "ready":
        cluster.post("/node/pvchv1/domain-state", **{"domain-state": "ready"})
        cluster.until(lambda: cluster.get("/node/pvchv1/domain-state")["domain_state"] == "ready")


def test_the_examples_are_found_and_few_are_not_run() -> None:
    assert len(EXAMPLES) > 20
    assert len(EXAMPLES) - len(RUN) <= MOST_NOT_RUN


def test_no_example_is_overlooked() -> None:
    for page in PAGES:
        written = re.findall(r"^[ >]*(?:\$ )?curl .*$", page.read_text(), re.MULTILINE)
        found = [command for example in EXAMPLES if example.page == page.name for command in example.commands]
        assert len(found) == len(written), page


def test_every_example_speaks_to_the_address_that_is_replaced() -> None:
    for example in RUN:
        for command in example.commands:
            assert sum(part.startswith(ADDRESS) for part in command) == 1, command


def test_an_answer_and_an_exemption_belong_to_the_adjacent_block() -> None:
    text = (
        "    curl a\n    curl \\\n    b\n\n```json\n{}\n```\n\n"
        "<!-- not run: no TLS -->\n\n```sh\ncurl c\n```\n\nSo.\n\n```json\n1\n```\n"
    )
    first, second = examples_of("page", text)
    assert (first.commands, first.answer, first.not_run) == ([["curl", "a"], ["curl", "b"]], {}, False)
    assert (second.commands, second.answer, second.not_run) == ([["curl", "c"]], None, True)
