"""Run all tests: `python -m tests.run [--once-more]`.

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


def main(once_more: bool) -> int:
    """Run the tests; the exit status is that of pytest."""
    side_by_side = pytest("--cache-clear", f"--numprocesses={WORKERS}", "--durations=20", "-m", "not alone")
    alone = pytest("-m", "alone")
    status = max(side_by_side, alone)
    first = failed()
    if not once_more or not first or status != TESTS_FAILED:  # a higher status says that not all tests were run
        return status
    status = pytest(*sorted(first))
    for name in sorted(first - failed()):
        print(f"flaky: {name}", flush=True)
    return status


def pytest(*arguments: str) -> int:
    # What a signal ends has a negative status, which must not count as less than success.
    return abs(subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode)


def failed() -> set[str]:
    return set(json.loads(FAILED.read_text())) if FAILED.exists() else set()


if __name__ == "__main__":
    sys.exit(main(once_more="--once-more" in sys.argv[1:]))
