"""Debian's Chromium without a window, as a visitor of the page.

It says what the page asked of whom, what it wrote to the console, and what an accessibility
checker (axe-core) has against it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.chrome.service import Service

from perfmeasure import jsonio

LIMIT_SECONDS = 30.0
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1280,900",
)


class Browser:
    """One window.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a page; its scripts go on after that."""
        self.driver.get("about:blank")  # else a change of the fragment alone loads nothing
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, what: str = "") -> Any:
        """Wait until a script returns something that is true; return that."""
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            found = None
            with contextlib.suppress(JavascriptException):  # what it looks at is not there yet
                found = self.run(script, *arguments)
            if found:
                return found
            if time.monotonic() > end:
                text = self.run("return document.body.innerText")
                raise AssertionError(
                    f"never {what or script}; the page says:\n{text}\n{self.console()}"
                )
            time.sleep(0.05)

    def figure_point(self, selector: str, x: Any, y: Any) -> tuple[float, float]:
        """Return where in the window a value of a figure's axes is; the figure is scrolled to."""
        at = self.run(
            "const place = document.querySelector(arguments[0]);"
            "place.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const view = [...Bokeh.index].find((one) => one.frame && place.contains(one.el));"
            "const box = view.el.getBoundingClientRect();"
            "return [box.x + view.frame.x_scale.compute(arguments[1]),"
            " box.y + view.frame.y_scale.compute(arguments[2])]",
            selector, x, y,
        )  # fmt: skip
        return float(at[0]), float(at[1])

    def click_figure(self, selector: str, x: Any, y: Any, script: str, *arguments: Any) -> None:
        """Click at a value of a figure's axes until a script returns something that is true.

        Two clicks shortly after one another are a double one to Bokeh, wherever they are.
        """
        for _ in range(10):
            self.click_at(*self.figure_point(selector, x, y))
            end = time.monotonic() + 2
            while time.monotonic() < end:
                if self.run(script, *arguments):
                    return
                time.sleep(0.05)
        raise AssertionError(f"clicks at {x}, {y} do not lead to {script} {arguments}")

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def wait_for_figures(self, selector: str = "main") -> int:
        """Wait until every figure below an element is drawn; return how many there are."""
        count = self.until(
            "const all = [...document.querySelector(arguments[0]).querySelectorAll('.figure')];"
            "return all.length && all.every((one) => one.dataset.drawn) && all.length",
            selector,
            what="all figures drawn",
        )
        return int(count)

    def console(self) -> list[str]:
        """Return the errors and warnings on the console since this was asked last."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[dict[str, Any]]:
        """Return what was asked of the network since this was asked last: ``url``, ``bytes``."""
        urls: dict[str, dict[str, Any]] = {}
        for entry in self.driver.get_log("performance"):
            message = jsonio.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                urls[parameters["requestId"]] = {"url": url, "bytes": 0}
            elif message["method"] == "Network.loadingFinished":
                request = urls.get(parameters["requestId"])
                if request is not None:
                    request["bytes"] = parameters["encodedDataLength"]
        return list(urls.values())

    def hosts(self) -> set[str]:
        """Return the hosts of the requests since `requests` was asked last."""
        schemes = ("http", "https", "ws", "wss", "ftp")
        parts = [urlsplit(request["url"]) for request in self.requests()]
        return {part.netloc for part in parts if part.scheme in schemes}

    def like(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Be a screen of that size, with that preference of colours."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )

    def press(self, key: str, code: int) -> None:
        """Press a key, as a keyboard does; ``code`` is its Windows virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.driver.execute_cdp_cmd(
                "Input.dispatchKeyEvent",
                {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **text},
            )

    def click_at(self, x: float, y: float) -> None:
        """Click at a point of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.driver.execute_cdp_cmd(
                "Input.dispatchMouseEvent",
                {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            )

    def violations(self, *rules: str) -> list[str]:
        """Return what axe-core has against the page, by these rules or by all that it has."""
        if not self.run("return Boolean(window.axe)"):
            script = resources.files("axe_core_python") / "axe.min.js"
            self.run(script.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "const options = {resultTypes: ['violations']};"
            "if (arguments[0].length) options.runOnly = arguments[0];"
            "axe.run(document, options).then((result) => done(result.violations))",
            list(rules),
        )
        return [
            f"{rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser, and end it."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(shutil.which("chromedriver") or "chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
