"""Work in threads, results in order.

Pillow, NumPy and hashing let other threads run while they work, so threads do for decoding what processes would,
without their start-up, copies and shared memory.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")

PATIENCE_SECONDS = 0.5
"""For threads to end: who presses Ctrl-C doesn't wait for a hundred large photographs."""


def local_world_size() -> int:
    """Processes of this job on this machine, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ordered_map(
    function: Callable[[Input], Output], inputs: Iterable[Input], threads: int, ahead: int | None = None
) -> Iterator[Output]:
    """Yields ``function(input)`` for each input, in their order, at most ``ahead`` of them computed before they are
    asked for (by default two per thread). What ``function`` raises is raised here. Stopping early stops the threads;
    one that is in the middle of its work doesn't hold up the program's end, as a ``ThreadPoolExecutor``'s would.
    """
    work: SimpleQueue[tuple[Input, Future[Output]] | None] = SimpleQueue()
    pending: deque[Future[Output]] = deque()

    def serve() -> None:
        while (task := work.get()) is not None:
            value, future = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(value))
                except BaseException as error:  # whatever it is, it is raised where the result is asked for
                    future.set_exception(error)

    pool = [Thread(target=serve, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    try:
        for value in inputs:
            pending.append(Future())
            work.put((value, pending[-1]))
            if len(pending) > (2 * threads if ahead is None else ahead):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in pool:
            work.put(None)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for thread in pool:
            thread.join(max(0.0, deadline - time.monotonic()))
