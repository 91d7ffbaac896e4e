"""The section 'bound' of the page 'Noise' in a real Chromium: one run, its pictures, Stop."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import _local

from apps import bound

pytestmark = pytest.mark.browser

SUM = """(name) => { const canvas = document.querySelector(`canvas[data-bound-sheet=${name}]`);
    return canvas.getContext('2d').getImageData(0, 0, 32, 32).data.reduce((a, b) => a + b, 0); }"""
BOTTOM = "document.querySelector('#gk-section-variance').getBoundingClientRect().bottom + scrollY"
LINE = "document.querySelector('#gk-section-bound .gk-now').getAttribute('x1')"


@pytest.fixture()
def visit(context, suite):
    """The page, ready, with every error of its scripts noted."""
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{suite}/noise")
    page.wait_for_selector("html.gk-shown", state="attached")
    yield page
    assert not page.faults, page.faults


def slide(page, slider: str, index: int) -> None:
    page.locator(slider).evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        index,
    )


def test_a_run(visit, tmp_path: Path, monkeypatch) -> None:
    before = visit.evaluate(BOTTOM)
    assert "1,231 evaluations" in visit.inner_text("#gk-bound-status")

    # Stop ends it within a batch, and what was there so far stays.
    examine = bound.examine

    def slow(*arguments: object, **named: object) -> Iterator[object]:
        for event in examine(*arguments, **named):
            time.sleep(0.3)  # the browser must be able to press Stop
            yield event

    monkeypatch.setattr(bound, "examine", slow)
    visit.click("#gk-bound-run")
    visit.wait_for_selector("#gk-bound-status:has-text('of 1231 evaluations')")
    visit.click("#gk-bound-stop")
    visit.wait_for_selector("#gk-bound-status:has-text('Stopped')")
    assert visit.locator("#gk-bound-figures a[data-save]:visible").count() == 0

    # A whole run: nothing jumps, every part is filled.
    monkeypatch.setattr(bound, "examine", examine)
    visit.click("#gk-bound-run")
    visit.wait_for_selector("#gk-bound-figures a[data-save=terms]:visible")
    visit.wait_for_selector("#gk-bound-run:not([disabled])")
    assert visit.evaluate(BOTTOM) == pytest.approx(before, abs=1)
    assert "at most" in visit.inner_text("[data-part='bound.sum']")
    assert visit.locator("#gk-bound-figures .gk-chart").count() == 3
    assert visit.locator(".gk-sums td b").count() == 2

    # Its slider answers without asking the server, and minds its own figures only.
    asked, line = len(visit.asked), visit.evaluate(LINE)
    pictures = {name: visit.evaluate(SUM, name) for name in ("x_t", "look", "back", "std")}
    slide(visit, "#gk-bound-time", 24)
    assert all(visit.evaluate(SUM, name) != was for name, was in pictures.items())
    assert "t = 1.00 " in visit.inner_text("[data-part='bound.now']")
    assert visit.locator(".gk-twelve canvas.gk-none").count() == 0
    end = visit.evaluate(LINE)
    assert float(end) > float(line)
    slide(visit, "#gk-time", 3)
    assert visit.evaluate(LINE) == end
    assert not [url for url in visit.asked[asked:] if "gradio_api" in url]

    with visit.expect_download() as download:
        visit.click("#gk-bound-figures a[data-save=terms]")
    download.value.save_as(tmp_path / "terms.csv")
    lines = (tmp_path / "terms.csv").read_text().splitlines()
    assert len(lines) == 1 + 1001 and lines[1].startswith("L_T,1,")

    # Vietnamese, its numbers with commas; the phone does not scroll sideways.
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    visit.wait_for_function(
        "document.querySelector('#gk-noise-back').innerText.includes('đường về')"
    )
    assert "t = 1,00" in visit.inner_text("[data-part='bound.now']")
    assert visit.input_value("#gk-bound-label input") == "không chọn lớp"
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")
