"""The live page under test: the program that serves it, and a real browser that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from .stack import REPOSITORY
from .waiting import Found, NotYet, wait_for, wait_until

HTTP_TIMEOUT = 20
MISSING_BROWSER = (
    "missing: chromium and chromedriver: install them (Debian: apt-get install chromium chromium-driver); "
    "the live page is tested in a real browser"
)


class LivePage:
    """One `kappa-dashboard`."""

    def __init__(self, clickhouse: str, database: str, pipelines: list[str], log_file: Path) -> None:
        binary = REPOSITORY / "target" / "release" / "kappa-dashboard"
        assert binary.is_file(), f"{binary} is not there: build it with `cargo build --release`"
        self.log_file = log_file
        arguments = [str(binary), "--listen", "127.0.0.1:0", "--clickhouse", clickhouse, "--database", database]
        for pipeline in pipelines:
            arguments += ["--pipeline", pipeline]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KAPPA_")}
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                arguments, env=clean, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "http://" in line, f"it says {line!r}, and in its log {log_file.read_text()}"
        self.url = line.split()[-1]

    def close(self) -> int:
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(20)

    def ask(self, path: str, **parameters: Any) -> requests.Response:
        return requests.get(f"{self.url}/api/{path}", params=parameters, timeout=HTTP_TIMEOUT)

    def answer(self, path: str, **parameters: Any) -> Any:
        response = self.ask(path, **parameters)
        assert response.ok, f"{path} {parameters}: {response.status_code} {response.text}"
        return response.json()


class Browser:
    """A headless Chromium. Looks and clicks as a person would; waits until what is expected is there."""

    def __init__(self, page: LivePage, driver: webdriver.Chrome) -> None:
        self.page = page
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.page.url}/{address}")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """In one step: the page changes under one's hands."""
        script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        return self.driver.execute_script(script, selector)

    def visible_text(self) -> str:
        return self.driver.execute_script("return document.body.innerText")

    def click(self, selector: str) -> None:
        self.wait_for(selector)
        self.all(selector)[0].click()

    def wait_for(self, selector: str, seconds: float = 30) -> None:
        wait_for(f"{selector} on the page", seconds, lambda: bool(self.all(selector)), self.visible_text)

    def wait_for_text(self, text: str, seconds: float = 30) -> None:
        wait_for(f"{text!r} on the page", seconds, lambda: text in self.visible_text(), self.visible_text)

    def wait_for_no_text(self, text: str, seconds: float = 30) -> None:
        wait_for(f"{text!r} to leave the page", seconds, lambda: text not in self.visible_text(), self.visible_text)

    def wait_for_texts(self, selector: str, expected: list[str], seconds: float = 30) -> None:
        def look() -> Found[None] | NotYet:
            found = self.texts(selector)
            return Found(None) if found == expected else NotYet(f"{found}, expected {expected}")

        wait_until(f"{selector} to say what was sent", seconds, look)

    def complaints(self) -> list[str]:
        """What the browser has against the page: errors of scripts, violations of the policy, missing files."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def chromium() -> tuple[str, str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.fail(MISSING_BROWSER)
    return browser, driver


@contextmanager
def driven(width: int = 1440, height: int = 900, scale: int = 1, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser of that size, with as little of a machine's own as possible."""
    browser, driver_path = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars", "--disable-extensions",
        "--disable-background-networking", "--no-first-run", f"--window-size={width},{height}", f"--force-device-scale-factor={scale}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}, {"name": "prefers-reduced-motion", "value": "reduce"},
        ]})  # fmt: skip
        yield driver
    finally:
        driver.quit()
