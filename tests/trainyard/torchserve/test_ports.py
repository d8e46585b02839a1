"""The limit of open files, which connections are."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import resource
from trainyard.torchserve.ports import allow_many_files

resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "expected"), [(256, 512, "512 512"), (512, 512, "512 512")])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may(soft: int, hard: int, expected: str) -> None:
    code = ASK.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == expected
