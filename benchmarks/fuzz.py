"""Sends odd requests to a real server, and tells whether it failed, restarted a worker or grew.

    python benchmarks/fuzz.py 100000      about a quarter of an hour on two cores

It is the slow test of 10,000, with as many as are asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[1] / "tests" / "trainyard" / "torchserve" / "test_fuzzed_server.py"


def main() -> int:
    """The exit code of the test."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    command = [sys.executable, "-m", "pytest", "-m", "slow", "-k", "fuzzed_requests", "-rA", str(TEST)]
    return subprocess.run(command, env={**os.environ, "FUZZ_REQUESTS": str(count)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
