"""The page 'VAE against diffusion' in a real Chromium: the picture, a run, the slider, Stop."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import _local
from PIL import Image

from apps.ways import road

pytestmark = pytest.mark.browser

SUM = """([row, column]) => {
    const canvas = document.querySelector(
        `[data-ways-row=${row}] canvas[data-ways-of=${column}]`);
    return canvas.getContext('2d').getImageData(0, 0, 32, 32).data.reduce((a, b) => a + b, 0); }"""
TOPS = """[...document.querySelectorAll('#gk-ways-figures section, #gk-ways-figures .gk-figure')]
    .map((one) => Math.round(one.getBoundingClientRect().top + scrollY))"""
PICTURE = "document.querySelector('#gk-compare-view img').src"


@pytest.fixture()
def visit(context, suite):
    """The page, ready, with every error of its scripts noted."""
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{suite}/compare")
    page.wait_for_selector("html.gk-ways-ready", state="attached")
    page.wait_for_selector("#gk-compare-view img")
    yield page
    assert not page.faults, page.faults


def slide(page, index: int) -> None:
    page.locator("#gk-ways-place").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        index,
    )


def finish(page) -> None:
    page.click("#gk-ways-run")
    page.wait_for_selector("#gk-ways-status:has-text('Done')")
    page.wait_for_selector("#gk-ways-run:not([disabled])")
    page.wait_for_selector("#gk-ways-figures a[data-save=way]:visible")


def test_a_run(visit, tmp_path: Path) -> None:
    before = visit.evaluate(TOPS)
    assert visit.locator("#gk-ways-figures a[data-save]:visible").count() == 0
    visit.fill("#gk-ways-steps input", "6")
    finish(visit)

    # Nothing jumps; every place is filled.
    assert visit.evaluate(TOPS) == pytest.approx(before, abs=1)
    assert "bits per dimension" in visit.inner_text("[data-part='ways.bill']")
    assert visit.locator("#gk-ways-figures .gk-stack rect").count() == 2 + 4 + 6
    assert visit.locator("#gk-section-ways-cloud img").count() == 7
    assert visit.locator(".gk-rungs .gk-rung img").count() == 4
    assert visit.locator("#gk-ways-figures a[data-save]:visible").count() == 5

    # The slider answers in the browser alone: every row has its own way.
    asked = len(visit.asked)
    seen = {}
    for place in (0, 6, 12):
        slide(visit, place)
        rows = ("vae", "hvae", "noise", "flow")
        seen[place] = [visit.evaluate(SUM, [row, "state"]) for row in rows]
    assert all(a != b for a, b in zip(seen[0], seen[6]))
    assert all(a != b for a, b in zip(seen[6], seen[12]))
    assert (
        seen[0][0]
        == seen[0][1]
        == visit.evaluate(
            """async () => { const image = document.querySelector('#gk-compare-view img');
        const canvas = new OffscreenCanvas(32, 32);
        const brush = canvas.getContext('2d');
        brush.drawImage(image, 0, 0);
        return brush.getImageData(0, 0, 32, 32).data.reduce((a, b) => a + b, 0); }"""
        )
    )
    assert "back again" in visit.inner_text("[data-ways-row=vae] .gk-route-now")
    visit.click("[data-ways-row=flow] [data-ways-share='0.5']")
    assert visit.input_value("#gk-ways-place") == "6"
    assert "t = 1.0" in visit.inner_text("[data-ways-row=flow] .gk-route-now")
    assert "no level" in visit.inner_text("[data-ways-row=hvae] .gk-route-now")
    assert visit.locator("[data-ways-share].gk-here").count() == 4
    assert not [url for url in visit.asked[asked:] if "gradio_api" in url]

    with visit.expect_download() as download:
        visit.click("#gk-ways-figures a[data-save=bound]")
    download.value.save_as(tmp_path / "bound.csv")
    lines = (tmp_path / "bound.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 + 5 + 7 and lines[1].startswith("VAE,reconstruction,")

    # Vietnamese, its numbers with commas; the phone does not scroll sideways.
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    visit.wait_for_function("document.querySelector('#gk-ways').innerText.includes('con đường')")
    assert "t = 1,0" in visit.inner_text("[data-ways-row=flow] .gk-route-now")
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")


def test_another_picture_makes_what_is_shown_stale(visit, tmp_path: Path) -> None:
    visit.fill("#gk-ways-steps input", "2")
    finish(visit)
    figures = visit.locator("#gk-ways-figures")
    assert "gk-stale" not in figures.get_attribute("class")
    first = visit.evaluate(PICTURE)
    visit.fill("#gk-scene input", "210031")
    visit.wait_for_function(f"{PICTURE} !== '{first}'")
    visit.wait_for_selector("#gk-ways-figures.gk-stale")
    finish(visit)
    assert "gk-stale" not in figures.get_attribute("class")

    # One's own picture; what is no picture is refused and nothing changes.
    second = visit.evaluate(PICTURE)
    buffer = io.BytesIO()
    Image.new("CMYK", (50, 40), (0, 255, 255, 0)).save(buffer, "JPEG")
    (tmp_path / "own.jpg").write_bytes(buffer.getvalue())
    visit.set_input_files("#gk-compare-picture input[type=file]", tmp_path / "own.jpg")
    visit.wait_for_function(f"{PICTURE} !== '{second}'")
    visit.wait_for_selector("#gk-ways-figures.gk-stale")
    own = visit.evaluate(PICTURE)
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    visit.set_input_files("#gk-compare-picture input[type=file]", tmp_path / "bad.png")
    visit.wait_for_selector(".toast-body:has-text('not a picture')")
    assert visit.evaluate(PICTURE) == own


def test_stop_and_a_refused_value(visit, monkeypatch) -> None:
    def slow(*arguments: object) -> Iterator[object]:
        for event in road(*arguments):
            time.sleep(0.1)
            yield event

    monkeypatch.setattr("apps.ways.road", slow)
    visit.fill("#gk-ways-steps input", "99")
    visit.click("#gk-ways-run")
    visit.wait_for_selector(".toast-body:has-text('from 2 to 50')")
    visit.wait_for_selector("#gk-ways-run:not([disabled])")
    visit.fill("#gk-ways-steps input", "50")
    visit.click("#gk-ways-run")
    visit.wait_for_selector("#gk-ways-status:has-text('evaluations')")
    visit.click("#gk-ways-stop")
    visit.wait_for_selector("#gk-ways-status:has-text('Stopped')")
    visit.wait_for_selector("#gk-ways-run:not([disabled])")
    assert visit.locator("#gk-ways-figures a[data-save=cloud]:visible").count() == 1
    assert visit.locator("#gk-ways-figures a[data-save=way]:visible").count() == 0
