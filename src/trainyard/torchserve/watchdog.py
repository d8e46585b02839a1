"""Ends TorchServe when the process that started it is gone without a word, as by SIGKILL.

It is run as a script with nothing but the standard library. Its stdin is a pipe from ``serve``, which writes the
process group of each TorchServe that it starts, and "end" when it has ended it itself. When the pipe closes without
that, the groups are killed and the private folder, its only argument, is removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

END = "end"
TRIES = 50
PAUSE = 0.1
"""Seconds between two tries to remove the folder, in which killed processes may still be writing."""


def main(folder: Path) -> None:
    """Waits for the pipe to close."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = []
    for line in sys.stdin:
        if line.strip() == END:
            return
        groups.append(int(line))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
