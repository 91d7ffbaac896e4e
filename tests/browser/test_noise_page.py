"""The page 'Noise' in a real Chromium, as a visitor uses it: one visit from upload to download."""

import json
from pathlib import Path

import pytest
from conftest import _local
from PIL import Image

pytestmark = pytest.mark.browser

SUM = """(index) => { const canvas = document.querySelectorAll('canvas[data-sheet]')[index];
    return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
        .data.reduce((a, b) => a + b, 0) / canvas.width ** 2 / 4; }"""


@pytest.fixture()
def visit(context, suite):
    """The page, its figures drawn, with every error of its scripts noted."""
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{suite}/noise")
    page.wait_for_selector("html.gk-shown", state="attached")
    page.wait_for_timeout(300)
    yield page
    assert not page.faults, page.faults


def wait(page, script: str) -> None:
    page.wait_for_function(script)


def live(page, path: str) -> str:
    return page.locator(f"[data-live='{path}']").first.inner_text()


def slide(page, index: int) -> None:
    page.locator("#gk-time").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        index,
    )


def save(page, selector: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(selector)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_a_visit(visit, tmp_path) -> None:
    # The slider answers without asking the server.
    before = len(visit.asked)
    slide(visit, 24)
    assert (live(visit, "a.k"), live(visit, "a.alpha")) == ("1000", "0.0064")
    slide(visit, 0)
    assert (live(visit, "b.k"), live(visit, "b.sigma")) == ("0", "0.0000")
    visit.click(".gk-film[data-film=a] button >> nth=4")
    assert live(visit, "a.k") == "500" and visit.input_value("#gk-time") == "12"
    assert len([url for url in visit.asked[before:] if "gradio_api" in url]) == 0

    # Another schedule: its own fields, its own curves; a bad value is told where one types.
    visit.click("#gk-b-kind input")
    visit.click("[role=option]:has-text('EDM')")
    wait(visit, "document.querySelector('[data-slot=title-b]').innerText.startsWith('EDM')")
    assert visit.is_visible("#gk-b-sigma_max") and not visit.is_visible("#gk-b-s")
    slide(visit, 24)
    assert live(visit, "b.sigma") == "80.00"
    visit.fill("#gk-a-T input", "0")
    visit.wait_for_selector("#gk-noise-note .gk-warn:has-text('from 2 to 4000')")
    visit.fill("#gk-a-T input", "100")
    wait(visit, "!document.querySelector('#gk-noise-note .gk-warn')")
    wait(visit, "document.querySelector('[data-live=\"a.k\"]').innerText === '100'")
    assert visit.locator("[data-slot=end-a] .gk-leak").count() == 1
    visit.check("#gk-a-zero_terminal_snr input")
    wait(visit, "!document.querySelector('[data-slot=end-a] .gk-leak')")

    # A picture of one's own: white at the start.
    Image.new("RGB", (200, 100), "white").save(tmp_path / "white.png")
    visit.set_input_files("#gk-noise-picture input[type=file]", tmp_path / "white.png")
    slide(visit, 0)
    visit.wait_for_function(f"({SUM})(0) > 254")

    # And back to a scene: another one, then the one of a seed.
    seed = visit.input_value("#gk-noise-picture input[type=number]")
    visit.click("#gk-noise-picture button:has-text('Another scene')")
    visit.wait_for_function(f"({SUM})(0) < 250")
    assert visit.input_value("#gk-noise-picture input[type=number]") != seed
    Image.new("RGB", (100, 200), "white").save(tmp_path / "tall.png")
    visit.set_input_files("#gk-noise-picture input[type=file]", tmp_path / "tall.png")
    visit.wait_for_function(f"({SUM})(0) > 254")
    visit.fill("#gk-noise-picture input[type=number]", seed)
    visit.wait_for_function(f"({SUM})(0) < 250")

    # What is behind the figures.
    curves = save(visit, "a[data-file=curves]", tmp_path).read_text().splitlines()
    assert len(curves) == 1 + 101 + 1001
    config = json.loads(save(visit, "a[data-file=diffusers-b]", tmp_path).read_text())
    assert config["_class_name"] == "EDMEulerScheduler"

    # Vietnamese, its numbers with commas; the phone does not scroll sideways.
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    wait(visit, "document.querySelector('#gk-noise-lead h1').innerText.includes('nhiễu')")
    slide(visit, 12)
    assert "," in live(visit, "b.sigma")
    hidden = "[...document.querySelectorAll('body [lang=en]')].every(e => !e.offsetParent)"
    assert visit.evaluate(hidden)
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")
