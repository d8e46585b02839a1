"""What TorchServe's management port says of the workers."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainyard.client.access import management_key

if TYPE_CHECKING:
    import aiohttp

SECONDS = 10.0
"""Limit of a call."""


class Workers(NamedTuple):
    """The workers of a model's default version.

    Attributes:
        ready: Process ids of those that have loaded it.
        wanted: How many there should be.
    """

    ready: frozenset[int]
    wanted: int


class Management:
    """TorchServe's management port.

    Args:
        url: Its address.
        key_file: TorchServe's own key file.
    """

    def __init__(self, url: str, key_file: Path) -> None:
        self._url, self._key_file = url, key_file
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Makes the connections' pool."""
        import aiohttp

        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    async def workers(self, model: str) -> Workers | None:
        """The workers of a model; nothing while the port doesn't answer, or doesn't know it."""
        import aiohttp

        assert self._session is not None, "open() comes first"
        headers = {"Authorization": f"Bearer {management_key(self._key_file)}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            async with self._session.get(f"{self._url}/models/{model}", headers=headers) as response:
                if response.status == 200:
                    [version] = await response.json()
                    ready = [worker["pid"] for worker in version["workers"] if worker["status"] == "READY"]
                    return Workers(frozenset(ready), version["minWorkers"])
        return None
