"""Work in threads, results in order.

Pillow, NumPy and hashing let other threads run while they work, so threads do for decoding what processes would,
without their start-up, copies and shared memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def local_world_size() -> int:
    """Processes of this job on this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ordered_map(
    function: Callable[[Input], Output], inputs: Iterable[Input], threads: int, ahead: int | None = None
) -> Iterator[Output]:
    """Yields ``function(input)`` for each input, in their order, at most ``ahead`` of them computed before they are
    asked for (by default two per thread). What ``function`` raises is raised here. Stopping early stops the threads.
    """
    pending: deque[Future[Output]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for value in inputs:
            pending.append(pool.submit(function, value))
            if len(pending) > (2 * threads if ahead is None else ahead):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
