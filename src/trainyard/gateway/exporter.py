"""The port of metrics: ours, whose names follow Prometheus' conventions, and TorchServe's own, as it writes them."""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web

from trainyard.gateway.metrics import Metrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OURS, TORCHSERVES = "/metrics", "/torchserve/metrics"
SECONDS = 5.0
"""Time that TorchServe has to tell its own."""


class Exporter:
    """Answers Prometheus; without a token, as it tells nothing of what was asked.

    Args:
        metrics: Ours.
        torchserve_url: Gives the address of TorchServe's own.
    """

    def __init__(self, metrics: Metrics, torchserve_url: Callable[[], str]) -> None:
        self._metrics, self._torchserve_url = metrics, torchserve_url

    async def open(self, listener: socket.socket) -> None:
        """Answers from now on."""
        app = web.Application()
        app.router.add_get(OURS, self._ours)
        app.router.add_get(TORCHSERVES, self._torchserves)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Answers no more."""
        await self._runner.cleanup()

    async def _ours(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": TEXT})

    async def _torchserves(self, _: web.Request) -> web.Response:
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=SECONDS)
            url = f"{self._torchserve_url()}/metrics"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=503, text=f"TorchServe doesn't answer: {type(error).__name__}\n")
        return web.Response(body=body, headers={"Content-Type": TEXT})
