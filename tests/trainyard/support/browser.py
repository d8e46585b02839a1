"""A headless Chromium, driven by its DevTools protocol: what a reader of an HTML file sees and can do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

SECONDS = 60
Result = TypeVar("Result")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Page:
    """A page in a browser. ``complaints`` are what the console, the content policy and the network said."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._runner, self._socket, self._number = runner, socket, 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> Any:
        """A command of the protocol and its result."""
        return self._runner.run(asyncio.wait_for(self._call(method, parameters), SECONDS))

    def open(self, path: Path, width: int = 1200, height: int = 900) -> None:
        """Goes to a file, and waits until it is loaded."""
        self.complaints.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.absolute().as_uri())
        while self.evaluate("document.readyState") != "complete" or self.evaluate("location.protocol") != "file:":
            pass

    def evaluate(self, script: str) -> Any:
        """What a line of JavaScript gives; it may wait for a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and lets go of a key, by its name in JavaScript."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[
            key
        ]
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Writes a PNG of the page, by default also of what is below the window."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    async def _call(self, method: str, parameters: dict[str, object]) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._hear(message.get("method"), message.get("params", {}))

    def _hear(self, event: str | None, facts: dict[str, Any]) -> None:
        if event in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(facts))
        if event == "Network.requestWillBeSent" and not facts["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"asks the network for {facts['request']['url']}")


@contextlib.contextmanager
def browser_page(program: str) -> Iterator[Page]:
    """Starts a browser with an empty profile and one page; ends it."""
    with tempfile.TemporaryDirectory() as profile, asyncio.Runner() as runner:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [program, *options, "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        session = runner.run(_session())
        try:
            port = runner.run(_within(_port(Path(profile))))
            yield Page(runner, runner.run(_within(_connect(session, port))))
        finally:
            runner.run(session.close())
            process.terminate()
            process.wait(SECONDS)


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _within(work: Coroutine[Any, Any, Result]) -> Result:
    return await asyncio.wait_for(work, SECONDS)


async def _port(profile: Path) -> str:
    while True:
        with contextlib.suppress(OSError, IndexError):
            return (profile / "DevToolsActivePort").read_text().splitlines()[0]
        await asyncio.sleep(0.1)


async def _connect(session: aiohttp.ClientSession, port: str) -> aiohttp.ClientWebSocketResponse:
    while True:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
        if pages:
            return await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        await asyncio.sleep(0.1)
