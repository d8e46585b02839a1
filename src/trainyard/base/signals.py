"""What signals do to a command."""

from __future__ import annotations

import signal
import sys

from trainyard.base.errors import EXIT_SIGTERM


def exit_on_sigterm() -> None:
    """Ends this process by SIGTERM as an error would, so that what was half done is taken away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_SIGTERM))
