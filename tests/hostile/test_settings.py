"""Settings files that are bombs: `pvcd check` says what is wrong, soon and in few words."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pvcd.settings import MAX_FILE_BYTES

SECONDS = 10.0
"""CPU time, of which starting Python takes half a second."""
LEVELS = "".join(f"  b{n + 1}: &b{n + 1} [{','.join([f'*b{n}'] * 9)}]\n" for n in range(9))
BOMBS = {
    "a billion laughs": f"pvc:\n  b0: &b0 [x,x,x]\n{LEVELS}",
    "an alias of itself": "pvc: &a [*a]",
    "merged keys": "a: &a {x: 1}\npvc:\n  <<: *a\n",
    "open lists": "pvc: " + "[" * 500_000,
    "closed lists": "pvc: " + "[" * 5000 + "]" * 5000,
    "maps in maps": "pvc: " + "{a: " * 100_000,
    "indentation": "pvc:\n" + "".join(" " * (n + 1) + "a:\n" for n in range(1000)),
    "dashes": "pvc: \n" + "- " * 400_000,
    "question marks": "pvc:\n" + "? " * 400_000,
    "colons": "pvc: " + "a: " * 300_000,
    "a long text": "pvc: {debug: " + "a" * 1_000_000 + "}",
    "a long quote": "pvc: '" + "''" * 500_000,
    "many keys": "pvc:\n" + "".join(f"  k{n}: 1\n" for n in range(80_000)),
    "as many keys as may be": "pvc:\n" + "".join(f"  k{n}: 1\n" for n in range(4900)),
    "many items": "pvc: [" + "1," * 500_000 + "]",
    "many wrong hosts": "pvc:\n  coordinators:\n" + "    - a b\n" * 5000,
    "many anchors": "pvc:\n" + "".join(f"  k{n}: &a{n} 1\n" for n in range(4000)),
    "many documents": "---\n" * 250_000,
    "a number of base 60": "pvc: {debug: " + "1:" * 1999 + "1}",
    "a longer one": "pvc: {debug: " + "1:" * 400_000 + "1}",
    "a long number": "pvc: {debug: " + "9" * 3999 + "}",
    "a longer number": "pvc: {debug: " + "9" * 900_000 + "}",
    "an endless number": "pvc: {debug: 1e999999}",
    "no date": "pvc: {debug: 2001-99-99}",
    "a list as key": "pvc: {? [a] : 1, {a: b}: 2}",
    "an object": "pvc: !!python/object/apply:os.system ['touch {file}']",
    "an object that is named": "pvc: {debug: !!python/name:os.system }",
    "a long tag": "pvc: !<" + "a" * 60_000 + "> 1",
    "a directive": "%YAML 9.9\n---\npvc: {}",
    "a comment": "#" * 1_000_000,
    "a megabyte of a file": "#" + "a" * MAX_FILE_BYTES,
    "NUL": "pvc: \x00",
    "no characters": "\xff\xfe\xfa",
    "nothing": "",
}


def cpu_seconds() -> float:
    """The CPU time of the programs that have ended; the time of the clock depends on what else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_malicious_settings_file_is_refused_within_seconds(tmp_path: Path, bomb: str) -> None:
    file, victim = tmp_path / "pvc-api.yaml", tmp_path / "victim"
    file.write_bytes(BOMBS[bomb].replace("{file}", str(victim)).encode("latin-1"))
    command = [sys.executable, "-m", "pvcd", "check", str(file)]
    begun = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * SECONDS, check=False)
    assert cpu_seconds() - begun <= SECONDS
    assert (done.returncode, done.stdout) == (2, ""), done.stderr[-1000:]
    assert "Traceback" not in done.stderr
    assert 0 < len(done.stderr) < 70_000
    assert not victim.exists()


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pvcd", "check", "/dev/zero"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * SECONDS, check=False)
    assert (done.returncode, done.stderr) == (2, f"Cannot read /dev/zero: it is larger than {MAX_FILE_BYTES} bytes.\n")
