"""A person at a browser: headless Chromium that reaches the sandbox by its name and trusts its key only."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from ai_sandbox_operator.api import names
from chat import environments
from chat.site import HOST, ORIGIN, PROVIDER, Site

WIDTH, HEIGHT = 1024, 640
PICTURES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "pictures"
#: Milliseconds until something that a person waits for must be there.
PATIENCE = 20_000


class Person:
    """One person with cookies of their own."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)

    async def open(self, path: str = "/") -> None:
        """Go to a page of the chat."""
        await self.page.goto(f"{ORIGIN}{path}")

    async def sees(self, text: str) -> Any:
        """Wait until the text is on the page."""
        found = self.page.get_by_text(text).first
        await found.wait_for(state="visible")
        return found

    async def logs_in(self, email: str, password: str, path: str = "/auth") -> None:
        """Fill in the form, and wait for the page behind it."""
        await self.open(path)
        await self.page.locator("#email").fill(email)
        await self.page.locator("#password").fill(password)
        await self.page.locator("button[type=submit]").click()
        await self.page.locator("#chat-input").wait_for(state="visible")

    async def asks(self, question: str) -> None:
        """Send a message, without waiting for the answer."""
        await self.page.locator("#chat-input").click()
        await self.page.keyboard.type(question)
        await self.page.keyboard.press("Enter")

    async def picture(self, name: str) -> None:
        """Keep what is on the screen for the documentation, if `AI_SANDBOX_PICTURES` is set."""
        if os.environ.get("AI_SANDBOX_PICTURES"):
            PICTURES.mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=PICTURES / f"{name}.png")


@contextlib.asynccontextmanager
async def opened(site: Site) -> AsyncIterator[Person]:
    """A browser in which nobody has logged in."""
    packages = environments.driver()
    assert packages is not None
    if str(packages) not in sys.path:
        sys.path.append(str(packages))
    rules = [
        f"MAP {HOST}:{names.PORT_CHAT} 127.0.0.1:{site.port}",
        f"MAP {PROVIDER} {site.address}",
        "MAP * ~NOTFOUND",
    ]
    playwright = importlib.import_module("playwright.async_api")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=environments.browser(),
            args=[
                f"--host-resolver-rules={', '.join(rules)}",
                f"--ignore-certificate-errors-spki-list={site.spki}",
                "--no-sandbox",
            ],
        )
        try:
            page = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            yield Person(page)
        finally:
            await browser.close()
