"""A headless Chromium that a test drives, by the DevTools protocol over pipes: real mouse and keys, no network, no sleeping."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_LIMIT_S = 120
"""For one condition or answer, on a busy machine."""
_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--remote-debugging-pipe",
]  # fmt: skip
_START = """
import fcntl, os, sys
both = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(both[0], 3)
os.dup2(both[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts the browser, which reads from descriptor 3 and writes to 4."""
_KEYS = {
    "Enter": ("Enter", 13), "Tab": ("Tab", 9), "Escape": ("Escape", 27), "Delete": ("Delete", 46),
    "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38), "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40),
}  # fmt: skip
_ALT, _CONTROL, _SHIFT = 1, 2, 8
MODIFIERS = {"Control": _CONTROL, "Shift": _SHIFT, "Alt": _ALT}


class Browser:
    """One tab. `problems` are the errors of the page and of its console."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 860), dark: bool = False) -> None:
        """Start Chromium with a profile in a folder."""
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        options = [*_OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
        self._log = (folder / "chromium.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(commands), str(answers), str(CHROMIUM), *options, "about:blank"],
            pass_fds=(commands, answers), stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number, self._rest, self.problems = 0, b"", list[str]()
        self._session = ""
        target = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        if dark:
            self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        self.requested: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command."""
        number = self._send(method, parameters)
        until = time.monotonic() + _LIMIT_S
        while True:
            answer = self._read(until, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        return self._number

    def _read(self, until: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = until - time.monotonic()
            assert left > 0, f"no answer to {what}"
            if select.select([self._answers], [], [], left)[0]:
                piece = os.read(self._answers, 1 << 20)
                assert piece, f"Chromium has ended; see {self._log.name}"
                self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(given["exceptionDetails"].get("exception", given["exceptionDetails"])))
            case "Log.entryAdded":
                self.problems.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled":
                self.problems.append(str(given["args"]))
            case "Network.requestWillBeSent":
                self.requested.append(given["request"]["url"])
            case "Page.javascriptDialogOpening":
                self._send("Page.handleJavaScriptDialog", {"accept": True})  # leaves a page with changes

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)

    def see(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until an expression is true in the page, and return its value: the page asks at each of its frames."""
        wait = (
            "new Promise((done, lost) => { const end = Date.now() + %d; const look = () => { let value; "
            "try { value = (%s); } catch (error) { value = undefined; } if (value) done(value); "
            "else if (Date.now() > end) lost(new Error('in vain')); else setTimeout(look, 20); }; look(); })"
        )
        try:
            return self.see(wait % (_LIMIT_S * 1000 * 2 // 3, condition))
        except AssertionError as error:
            raise AssertionError(
                f"never: {condition}; message: {self.see('document.body?.innerText.slice(0, 600)')}; {self.problems}"
            ) from error

    def middle(self, selector: str) -> tuple[float, float]:
        """Return the middle of an element on the screen, which is scrolled there."""
        place = (
            "(() => { const one = document.querySelector(%s); one.scrollIntoView({block: 'nearest'}); "
            "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        x, y = self.see(place % json.dumps(selector))
        return x, y

    def mouse(self, kind: str, x: float, y: float, buttons: int = 1) -> None:
        """Send an event of the mouse: Pressed, Moved or Released."""
        self.call(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left" if buttons or kind != "Moved" else "none",
            buttons=buttons, clickCount=1,
        )  # fmt: skip

    def click(self, selector: str) -> None:
        """Click the middle of an element, once it is there."""
        self.until(f"document.querySelector({json.dumps(selector)})?.getClientRects().length")
        self.click_at(*self.middle(selector))

    def click_at(self, x: float, y: float) -> None:
        """Click a place."""
        self.mouse("Moved", x, y, 0)
        self.mouse("Pressed", x, y)
        self.mouse("Released", x, y, 0)

    def drag(self, selector: str, dx: float, dy: float) -> None:
        """Drag an element by its middle."""
        x, y = self.middle(selector)
        self.mouse("Moved", x, y, 0)
        self.mouse("Pressed", x, y)
        for share in (0.25, 0.5, 0.75, 1):
            self.mouse("Moved", x + share * dx, y + share * dy)
        self.mouse("Released", x + dx, y + dy, 0)

    def press(self, key: str, *modifiers: str) -> None:
        """Press a key."""
        flags = sum(MODIFIERS[name] for name in modifiers)
        code, number = _KEYS.get(key, (f"Key{key.upper()}", ord(key[0].upper())))
        text = "\r" if key == "Enter" else key if len(key) == 1 and not flags & ~_SHIFT else ""
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": flags}
        self.call(
            "Input.dispatchKeyEvent",
            type="keyDown" if text else "rawKeyDown",
            **shared,
            **({"text": text} if text else {}),
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def fill(self, selector: str, text: str) -> None:
        """Put a text into a field, as if it were typed."""
        self.click(selector)
        self.see(f"document.querySelector({json.dumps(selector)}).select?.()")
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a list."""
        one = json.dumps(selector)
        self.see(
            f"(() => {{ const one = document.querySelector({one}); one.value = {json.dumps(value)}; "
            "one.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End Chromium."""
        os.close(self._commands)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._answers)
        self._log.close()
