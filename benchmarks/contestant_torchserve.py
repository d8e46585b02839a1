"""TorchServe without our gateway, for `servers.py`: as many workers, with batches that TorchServe makes itself.

    python benchmarks/contestant_torchserve.py RUN

Says where it is as a line of JSON, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from servers import MODEL

from trainyard.gateway.bodies import Limits
from trainyard.torchserve.archive import make_archive
from trainyard.torchserve.java import find_java
from trainyard.torchserve.process import Backend, RunDirectory, open_run_directory
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.store import collect


async def serve(directory: RunDirectory, run: Path) -> None:
    """Serves until stdin ends."""
    models = collect([f"{MODEL}={run}"], Settings(), (), directory)
    for model in models:  # once more, as for a TorchServe that is alone
        make_archive(model, directory.store / model.archive)
    backend = Backend(find_java(), directory, models, Limits.body)
    await backend.start()
    try:
        await backend.until_loaded()
        print(json.dumps({"inference": backend.url("inference"), "token_file": str(backend.key_file)}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await backend.stop()


with open_run_directory() as folder:
    asyncio.run(serve(folder, Path(sys.argv[1])))
