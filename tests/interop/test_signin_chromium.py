"""The sign-in pages in a real browser, whose own rules (cookies, Origin, Content-Security-Policy) no imitation knows."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from buri.testing.realsite import Box, Place

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]


@pytest.mark.parametrize(
    ("language", "scheme", "width", "javascript"),
    [("en-US", "light", 1280, True), ("ja-JP", "dark", 390, False)],
)
def test_the_owner_signs_in_and_lets_a_machine_join(
    tmp_path: Path, language: str, scheme: str, width: int, javascript: bool
) -> None:
    place = Place(tmp_path)
    complaints: list[str] = []

    async def main() -> None:
        async with place.server() as coordinator, async_playwright() as playwright:
            chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = await chromium.new_context(
                locale=language,
                color_scheme="dark" if scheme == "dark" else "light",
                viewport={"width": width, "height": 900},
                java_script_enabled=javascript,
            )
            page = await context.new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            token = await coordinator.people.owner_link("")
            await page.goto(f"{place.url}/welcome/{token}")
            await page.fill("[name=name]", "alice")
            for name in ("password", "again"):
                await page.fill(f"[name={name}]", "many words in a row")
            await page.click("form[action^='/welcome'] button")
            assert page.url == f"{place.url}/"

            await page.click("form[action='/logout'] button")
            box = Box("box")
            url = (await box.ask(coordinator)).auth_url
            follow_up = asyncio.ensure_future(box.ask(coordinator, url))
            await page.goto(url)
            await page.fill("[name=name]", "alice")
            await page.fill("[name=password]", "many words in a row")
            await page.click("form[action='/login'] button")
            assert page.url == url
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            await page.click("button[value=join]")
            assert (await follow_up).login.login_name == "alice"
            assert "box" in await page.inner_text("h1")
            await chromium.close()
        assert complaints == []

    asyncio.run(asyncio.wait_for(main(), 100))
