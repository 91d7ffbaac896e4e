"""The second half of 'VAE against diffusion' in a real Chromium: draw, cross, scrub, save."""

import pytest
from conftest import _local

from apps import blur as averages
from apps import crossing, traverse

pytestmark = pytest.mark.browser

COLOURS = """(selector) => [...document.querySelectorAll(selector)].map((canvas) =>
    new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size)"""
PIXELS = """(selector) => [...document.querySelector(selector).getContext('2d')
    .getImageData(0, 0, 32, 32).data].join()"""
SLIDE = """(slider, value) => { slider.value = value;
    slider.dispatchEvent(new Event('input', {bubbles: true})); }"""
SECTIONS = ("dreams", "bridge", "traverse", "blur")


@pytest.fixture()
def visit(context, suite, monkeypatch):
    """The page, with every error of its scripts noted; its runs are short."""
    monkeypatch.setattr(crossing, "STEPS", 2)
    monkeypatch.setattr(traverse, "PICTURES", 8)
    monkeypatch.setattr(averages, "DRAWS", 32)
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, suite, request.url))
    page.goto(f"{suite}/compare")
    page.wait_for_selector("html.gk-ready")
    page.wait_for_selector("#gk-bridge-other img")
    page.wait_for_function("window.genkit.blur")
    yield page
    assert not page.faults, page.faults


def ran(visit, name: str) -> None:
    visit.click(f"#gk-{name}-run")
    visit.wait_for_selector(f"#gk-{name}-status:has-text('Done in')")


def heights(visit) -> list[float]:
    return [visit.locator(f"#gk-{name}").bounding_box()["height"] for name in SECTIONS]


def test_a_visit(visit, tmp_path) -> None:
    before = heights(visit)
    dreams(visit, tmp_path)
    bridge(visit)
    strips(visit)
    soft(visit, tmp_path)
    # Everything has its place from the start.
    assert heights(visit) == pytest.approx(before, abs=2)
    table(visit)
    phone(visit)


def saved(visit, name: str, path) -> list[str]:
    with visit.expect_download() as download:
        visit.click(f"a[data-save={name}]")
    download.value.save_as(path)
    return path.read_text().splitlines()


def dreams(visit, tmp_path) -> None:
    assert not visit.is_visible("a[data-save=dreams]")
    visit.fill("#gk-dreams-seed input", "-1")
    visit.click("#gk-dreams-run")
    visit.wait_for_selector(".toast-body:has-text('from 0 to')")
    visit.fill("#gk-dreams-seed input", "7")
    ran(visit, "dreams")
    drawn = visit.evaluate(COLOURS, "#gk-dreams canvas")
    assert len(drawn) == 40 and min(drawn) > 2
    assert "sharpness" in visit.inner_text("[data-part='dreams.of.hvae']")
    assert len(saved(visit, "dreams", tmp_path / "dreams.csv")) == 1 + 5 * 8


def bridge(visit) -> None:
    # A picture with itself is answered in a sentence.
    a = visit.input_value("#gk-scene input")
    visit.fill("#gk-bridge-seed input", a)
    visit.click("#gk-bridge-run")
    visit.wait_for_selector(".toast-body:has-text('A and B are the same picture')")
    visit.fill("#gk-bridge-seed input", "9")
    ran(visit, "bridge")
    assert min(visit.evaluate(COLOURS, "#gk-bridge canvas")) > 2
    middle = "#gk-bridge canvas[data-row='2'][data-column='4']"
    arc = visit.evaluate(PIXELS, middle)
    assert "Arcs" in visit.inner_text("#gk-bridge h2 + p")
    visit.click("#gk-bridge [data-to=straight]")
    assert "Straight lines" in visit.inner_text("#gk-bridge h2 + p")
    assert visit.evaluate(PIXELS, middle) != arc
    visit.click("#gk-bridge [data-to=arc]")
    assert visit.evaluate(PIXELS, middle) == arc
    # Another B makes it stale; when the B that it is about is back, it holds again.
    visit.fill("#gk-bridge-seed input", "10")
    visit.wait_for_selector("#gk-bridge.gk-stale")
    visit.fill("#gk-bridge-seed input", "9")
    visit.wait_for_selector("#gk-bridge:not(.gk-stale)")
    # Another picture of the page makes it stale until the next run.
    visit.fill("#gk-scene input", "11")
    visit.wait_for_selector("#gk-bridge.gk-stale .gk-old", state="visible")


def strips(visit) -> None:
    ran(visit, "traverse")
    place, slider = "#gk-traverse .gk-traverse-now", visit.locator("#gk-traverse-value")
    slider.evaluate(SLIDE, 0)
    assert visit.inner_text("[data-part='traverse.value']") == "−3.00"
    first = visit.evaluate(PIXELS, place)
    slider.evaluate(SLIDE, 24)
    assert visit.evaluate(PIXELS, place) != first
    visit.click("#gk-traverse [data-unit='5']")
    assert visit.get_attribute("#gk-traverse [data-unit='5']", "aria-pressed") == "true"
    assert "Number 6" in visit.inner_text("[data-part='traverse.now']")
    # To another picture and back: the next answer is the last one again, and is shown as new.
    visit.fill("#gk-scene input", "12")
    visit.wait_for_selector("#gk-traverse.gk-stale .gk-old", state="visible")
    visit.fill("#gk-scene input", "11")
    visit.wait_for_function("document.querySelector('#gk-scene input').value === '11'")
    visit.click("#gk-traverse-run")
    visit.wait_for_selector("#gk-traverse:not(.gk-stale)")


def soft(visit, tmp_path) -> None:
    ran(visit, "blur")
    assert visit.locator("#gk-blur polyline").count() == 3
    mean = visit.evaluate(PIXELS, ".gk-blur-average")
    visit.locator("#gk-blur-count").evaluate(SLIDE, 0)
    assert visit.inner_text("[data-part='blur.count']") == "1"
    assert visit.evaluate(PIXELS, ".gk-blur-average") != mean
    one = visit.evaluate(PIXELS, "#gk-blur canvas[data-row='1'][data-column='0']")
    assert visit.evaluate(PIXELS, ".gk-blur-average") == one
    assert len(saved(visit, "sigma", tmp_path / "sigma.csv")) == 1 + 32 * 32


def table(visit) -> None:
    text = visit.inner_text("#gk-standings")
    assert "bits/dim" in text or "benchmarks.families" in text


def phone(visit) -> None:
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    visit.wait_for_selector("#gk-blur h2:has-text('Vì sao VAE bị mờ')")
    assert "," in visit.inner_text("[data-part='dreams.of.vae']")
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")
