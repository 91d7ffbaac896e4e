"""The race and the steering in a real Chromium: run, watch, stop, scrub, save."""

import pytest
from conftest import _local

from apps import contest, scoreboard
from apps import race as module

pytestmark = pytest.mark.browser

DRAWN = """(selector) => [...document.querySelectorAll(selector)].map((canvas) =>
    new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size)"""


@pytest.fixture()
def visit(context, suite, monkeypatch):
    """The page, with every error of its scripts noted; its races are short."""
    monkeypatch.setattr(module, "EVALUATIONS", (1, 2, 5))
    for place in (contest, module, scoreboard):
        monkeypatch.setattr(place, "REFERENCE", 20)
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    page.goto(f"{suite}/noise")
    page.wait_for_selector("html.gk-shown", state="attached")
    yield page
    assert not page.faults, page.faults


def height(visit) -> float:
    """How far below the top of its section the table of the race is."""
    top, table = (visit.locator(one).bounding_box() for one in ("#gk-race", ".gk-race-table"))
    return table["y"] - top["y"]


def test_a_visit(visit, monkeypatch, tmp_path) -> None:
    race(visit, monkeypatch, tmp_path)
    wheel(visit)


def race(visit, monkeypatch, tmp_path) -> None:
    # The places are there before the first run, and the figures above leave them alone.
    before = height(visit)
    assert "about 45 seconds" in visit.inner_text("#gk-race-status")
    assert not visit.is_visible("a[data-save=race]")

    # Stop ends a long one, and what is refused is a sentence.
    for place in (contest, module, scoreboard):
        monkeypatch.setattr(place, "REFERENCE", 100_000)
    visit.click("#gk-race-run")
    visit.wait_for_selector("#gk-race-status:has-text('of 100000 evaluations')")
    visit.click("#gk-race-stop")
    visit.wait_for_selector("#gk-race-status:has-text('Stopped')")
    for place in (contest, module, scoreboard):
        monkeypatch.setattr(place, "REFERENCE", 20)
    visit.fill("#gk-race-seed input", "-1")
    visit.click("#gk-race-run")
    visit.wait_for_selector(".toast-body:has-text('from 0 to')")
    visit.fill("#gk-race-seed input", "5")

    visit.click("#gk-race-run")
    visit.wait_for_selector("#gk-race-status:has-text('Done in')")
    visit.wait_for_selector("#gk-race [data-part='race.now']:has-text('closest')")
    assert visit.locator("#gk-race polyline").count() == 4
    drawn = visit.evaluate(DRAWN, "#gk-race canvas")
    assert [colours > 2 for colours in drawn] == [True] * 5 + [False] * 2
    assert abs(height(visit) - before) < 2

    # The slider answers in the browser.
    for index, nfe in ((0, "1"), (2, "5")):
        visit.locator("#gk-race-count").evaluate(
            "(slider, value) => { slider.value = value;"
            " slider.dispatchEvent(new Event('input', {bubbles: true})); }", index,
        )  # fmt: skip
        assert visit.inner_text("[data-part='race.count']") == nfe
        assert f"n = {nfe} " in visit.inner_text("#gk-race [data-tile='1'] span")
    with visit.expect_download() as download:
        visit.click("a[data-save=race]")
    download.value.save_as(tmp_path / "race.csv")
    assert len((tmp_path / "race.csv").read_text().splitlines()) == 1 + 4 * 3


def wheel(visit) -> None:
    visit.fill("#gk-steer-steps input", "3")
    visit.click("#gk-steer-run")
    visit.wait_for_selector("#gk-steer-status:has-text('Done in')")
    visit.wait_for_selector("#gk-steer [data-part='steer.now']:has-text('sea, night')")
    assert min(visit.evaluate(DRAWN, "#gk-steer canvas")) > 2
    assert visit.locator("#gk-steer polyline").count() == 15

    # Vietnamese with the classes' names and decimal commas; the phone does not scroll sideways.
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    visit.wait_for_selector("#gk-steer [data-part='steer.now']:has-text('biển, ban đêm')")
    assert visit.input_value("#gk-steer-label input") == "biển, ban đêm"
    assert "," in visit.inner_text("#gk-steer [data-tile='1-0'] span")
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")
