"""Run all tests: `python -m tests.run [--once-more] [WHAT...]`.

First all lanes of tests/lanes.py side by side, then, with nothing beside them, the tests that are marked `alone`. With
--once-more, what failed is run once more with nothing beside it: what passes then is printed as `flaky: NAME` and is no
failure; what fails twice is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
"""Where pytest itself keeps the names of tests that failed and have not passed since."""
WORKERS = os.environ.get("TEST_WORKERS", "4")
PASSED, TESTS_FAILED = 0, 1


def main(*arguments: str) -> int:
    """Run the tests; the exit status is that of pytest."""
    once_more = "--once-more" in arguments
    what = [argument for argument in arguments if argument != "--once-more"]
    side_by_side = pytest("--cache-clear", f"--numprocesses={WORKERS}", "--durations=20", "-m", "not alone", *what)
    alone = pytest("-m", "alone", *what)
    status = max(side_by_side, alone)
    if not once_more or status != TESTS_FAILED:  # a higher status says that not all tests were run
        return status
    first = failed()
    status = pytest("--last-failed", "--last-failed-no-failures=none", *what)
    twice = failed()
    for name in sorted(first - twice):
        print(f"flaky: {name}", flush=True)
    return max(status, TESTS_FAILED) if twice or not first else status


def pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def failed() -> set[str]:
    return set(json.loads(FAILED.read_text())) if FAILED.exists() else set()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
