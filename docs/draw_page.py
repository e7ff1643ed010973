"""Draws the pictures of the page from a real `ledger up --demo`; `make page-pictures` runs it.

It needs Chromium.
"""

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests.support.chromium import ARGUMENTS, find_chromium

FOLDER = Path(__file__).with_name("page")
PORT = "8472"
URL = f"http://127.0.0.1:{PORT}"
LINK = re.compile(rf"^{URL}/login/link/\S+")

HEIGHT = 800


def main() -> None:
    """Run the demo until it waits for Ctrl-C, take the pictures, and stop it."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ledger", "up", "--demo", "--data", f"{folder}/data"]
        with subprocess.Popen(  # our own command
            [*command, "--port", PORT],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as demo:
            assert demo.stdout  # noqa: S101 -- a pipe, as asked for
            link = ""
            for line in demo.stdout:
                link = line.strip() if LINK.match(line) else link
                if line.startswith("Running."):
                    try:
                        take(link)
                    finally:
                        demo.send_signal(signal.SIGINT)


def take(link: str) -> None:
    """Take the pictures, logged in by the link."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        cookies = _log_in(browser, link)
        _picture(browser, cookies, "overview", "/")
        _picture(browser, cookies, "bill", _bill(browser, cookies))
        _picture(browser, cookies, "request", "/requests/1", scheme="dark")
        _picture(browser, cookies, "phone", "/", scheme="dark", width=375)
        browser.close()


def _log_in(browser: Browser, link: str) -> list[object]:
    context = browser.new_context()
    context.new_page().goto(link)
    return [*context.cookies()]


def _bill(browser: Browser, cookies: list[object]) -> str:
    """Return the address of a bill of which an event is missing, or else was asked for."""
    context = browser.new_context()
    context.add_cookies(cookies)  # type: ignore[arg-type]
    page = context.new_page()
    links = page.locator("td a[href*='/bills/']")
    for path in ("/missing-events", "/requests/1"):
        page.goto(URL + path)
        if links.count():
            break
    return str(links.first.get_attribute("href"))


def _picture(
    browser: Browser,
    cookies: list[object],
    name: str,
    path: str,
    *,
    scheme: Literal["light", "dark"] = "light",
    width: int = 1100,
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": HEIGHT})
    context.add_cookies(cookies)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(URL + path)
    page.screenshot(path=FOLDER / f"{name}.png")
    context.close()


if __name__ == "__main__":
    main()
