"""A real Chromium and the suite over a model without weights."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake import FakeTextToImage, fake_studio

from apps import build, options

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _chromium() -> str | None:
    """Debian's Chromium, another one on the path, or the one that playwright installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("GENKIT_CHROMIUM"), *map(shutil.which, names)]
    return next((path for path in found if path), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        path = _chromium() or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium was found: apt-get install chromium, or set GENKIT_CHROMIUM")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def fake() -> FakeTextToImage:
    """The model behind the page; a test may change its `delay`."""
    return FakeTextToImage(delay=0.02)


@pytest.fixture(scope="session")
def suite(fake: FakeTextToImage) -> Iterator[str]:
    """Address of the running suite."""
    blocks = build(fake_studio(fake))
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield url.rstrip("/")
    blocks.close()


@pytest.fixture()
def context(chromium) -> Iterator[object]:
    """A fresh visitor: desktop, light, English."""
    visitor = chromium.new_context(
        viewport={"width": 1280, "height": 900}, locale="en-US", accept_downloads=True
    )
    visitor.set_default_timeout(60_000)
    yield visitor
    visitor.close()


@pytest.fixture()
def tab(context, suite) -> Iterator[object]:
    """The page 'Draw', ready, with every error of its scripts and every foreign address noted."""
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    open_page(page, f"{suite}/prompt")
    yield page
    assert not page.faults, page.faults


def _local(page, suite: str, url: str) -> None:
    if not url.startswith((suite, "data:", "blob:")):
        page.faults.append(f"the page asked for {url}")


def open_page(page, url: str) -> None:
    """Goes there and waits until language and settings are in place."""
    page.goto(url)
    page.wait_for_selector("html.gk-ready")
    if page.locator("#gk-draw").count():
        page.wait_for_selector("html.gk-open")
