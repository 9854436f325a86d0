"""Firefox without a window, over WebDriver BiDi: opens a page, runs scripts and notes the page's errors.

Playwright drives only a Firefox of its own, which pip does not bring. It needs `pip install websockets`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

START_S, ANSWER_S = 60.0, 120.0
"""How long Firefox may take to start, and to answer."""
PREFERENCES = {
    "media.autoplay.default": 0,  # sound may play without a click
    "media.autoplay.blocking_policy": 0,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """An open tab.

    Attributes:
        errors: Errors of the page so far.
    """

    def __init__(self, socket: Any) -> None:
        """Open a session.

        Args:
            socket: Connection to Firefox.
        """
        self.errors: list[str] = []
        self._socket, self._numbers = socket, count(1)
        self._send("session.new", capabilities={})
        self._send("session.subscribe", events=["log.entryAdded"])
        self._tab = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, address: str) -> None:
        """Open a page, and wait until it is loaded."""
        self._send("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def evaluate(self, function: str, *arguments: object) -> Any:
        """Call a function in the page and wait for its promise.

        Args:
            function: JavaScript of the function.
            arguments: Its arguments, as JSON.

        Returns:
            What it returns, as JSON.

        Raises:
            RuntimeError: It has failed.
        """
        given = ", ".join(json.dumps(one) for one in arguments)
        expression = f"(async () => JSON.stringify(await ({function})({given})))()"
        target = {"context": self._tab}
        answer = self._send(
            "script.evaluate",
            expression=expression,
            target=target,
            awaitPromise=True,
            userActivation=True,  # as after a click
        )
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"].get("value", "null"))

    def _send(self, method: str, **parameters: object) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=ANSWER_S))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.errors.append(str(answer["params"]["text"]))
            if answer.get("id") == number:
                if answer["type"] != "success":
                    raise RuntimeError(f"{method}: {answer['message']}")
                return answer["result"]


@contextmanager
def started(program: str) -> Iterator[Firefox]:
    """Start Firefox with an empty profile, and end it afterwards.

    Args:
        program: Path of Firefox.

    Yields:
        Its tab.
    """
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(
        prefix="talkhead-firefox-", ignore_cleanup_errors=True
    ) as name:
        profile = Path(name)
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines))
        command = [program, "--headless", "--remote-debugging-port", "0", "--profile", name]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            with connect(f"{_address(profile)}/session", max_size=None) as socket:
                yield Firefox(socket)
        finally:
            process.terminate()
            process.wait()


def _address(profile: Path) -> str:
    """Wait until Firefox listens, and return its address."""
    stated, end = profile / "WebDriverBiDiServer.json", time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            about = json.loads(stated.read_text())
            return f"ws://{about['ws_host']}:{about['ws_port']}"
        except (OSError, ValueError):
            time.sleep(0.1)
    raise TimeoutError("Firefox has not started")
