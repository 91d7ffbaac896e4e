"""The page 'Latents' in a real Chromium: colour, point, upload, line, captions, downloads."""

import io

import pytest
from conftest import _local
from fake import FakeTextToImage, fake_studio
from PIL import Image

from apps import build, options, spaces
from genkit import probes

pytestmark = pytest.mark.browser

COUNT = 150
INK = """(selector) => [...document.querySelectorAll(selector)].map((canvas) =>
    canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
        .reduce((sum, value, i) => (i % 4 === 3 && value ? sum + 1 : sum), 0))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(spaces, "COUNT", COUNT)
        patch.setattr(probes, "REDRAWN", 20)
        blocks = build(fake_studio(FakeTextToImage()))
        _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
        yield url.rstrip("/")
        blocks.close()


@pytest.fixture()
def visit(context, site):
    """The page with its points, every error of its scripts noted."""
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: _local(page, site, request.url))
    page.goto(f"{site}/latents")
    page.wait_for_selector("html.gk-mapped", state="attached")
    yield page
    assert not page.faults, page.faults


def places(page) -> dict[str, float]:
    """Where the parts of the page stand."""
    return page.evaluate(
        "() => Object.fromEntries(['gk-spaces-figure', 'gk-truth', 'gk-line', 'gk-match'].map("
        "(id) => [id, document.getElementById(id).getBoundingClientRect().top + scrollY]))"
    )


def click_point(page, encoder: str, index: int) -> None:
    x, y = page.evaluate(f"genkit.spaces.where('{encoder}', {index})")
    box = page.locator(f'#gk-spaces-figure canvas[data-plot="{encoder}"]').bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_visit(visit, tmp_path) -> None:
    before = places(visit)
    points(visit, tmp_path)
    own_picture(visit, tmp_path)
    line(visit, tmp_path)
    captions(visit, tmp_path)
    after = places(visit)
    assert {name: abs(after[name] - top) < 3 for name, top in before.items()} == dict.fromkeys(
        before, True
    )
    vietnamese_on_a_phone(visit)


def points(visit, tmp_path) -> None:
    assert min(visit.evaluate(INK, "canvas[data-plot]")) > 500
    assert f"{COUNT} test scenes" in visit.inner_text("#gk-spaces-status")
    assert visit.locator("#gk-truth tbody tr").count() == 11 + 11 + 4 + 4
    assert "of the 4 sentences are true" in visit.inner_text("#gk-truth")

    # A label by its name, a class alone, and a point that is the same scene everywhere.
    visit.click("#gk-latents-attribute input")
    visit.click("ul[role=listbox] >> text=ground")
    visit.wait_for_selector(".gk-classes button:has-text('sea')")
    assert visit.locator(".gk-classes button").count() == 4
    full = visit.evaluate(INK, "canvas[data-over=query]")
    visit.click(".gk-classes button:has-text('sea')")
    assert visit.get_attribute(".gk-classes button:has-text('sea')", "aria-pressed") == "true"
    visit.click(".gk-classes button:has-text('sea')")
    assert visit.evaluate(INK, "canvas[data-over=query]") == full
    click_point(visit, "vae", 40)
    told = visit.inner_text("[data-part='spaces.told']")
    assert told.startswith("Scene 21")
    seed = int(told.split()[1])
    for name in ("convnet", "vae", "vit", "contrastive"):
        assert "alike in: ground" in visit.inner_text(f'[data-agree="{name}"]')
        assert visit.locator(f'[data-nearest="{name}"] [data-index]').count() == 8
    visit.keyboard.press("ArrowRight")
    visit.focus('canvas[data-plot="vit"][data-over="query"]')
    visit.keyboard.press("ArrowRight")
    assert str(seed + 1) in visit.inner_text("[data-part='spaces.told']") or str(
        seed + 2
    ) in visit.inner_text("[data-part='spaces.told']")

    # t-SNE moves the points; figure and data are files.
    visit.click("#gk-latents-settle")
    visit.wait_for_selector("#gk-spaces-status:has-text('arranged')")
    old = visit.evaluate("genkit.spaces.where('vae', 40)")
    visit.click("#gk-latents-view label:has-text('t-SNE')")
    visit.wait_for_timeout(900)
    assert visit.evaluate("genkit.spaces.where('vae', 40)") != old
    for make, name, least in (("figure", "latents-tsne.png", 5000), ("points", "p.csv", 5000)):
        with visit.expect_download() as download:
            visit.click(f'button[data-make="{make}"]')
        download.value.save_as(tmp_path / name)
        assert (tmp_path / name).stat().st_size > least
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert len(rows) == 1 + COUNT and rows[0].startswith("seed,time,ground")
    assert len(rows[0].split(",")) == 1 + 11 + 2 * 4 * 2
    saved(visit, "#gk-truth a[data-save=probes]", tmp_path, 1 + 4 * 11)


def own_picture(visit, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (20, 30, 90)).save(buffer, "PNG")
    picture = {"name": "night.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    before = visit.get_attribute("#gk-near-picked img", "src")
    visit.set_input_files("#gk-spaces .gk-picker input[type=file]", picture)
    visit.wait_for_function(f"document.querySelector('#gk-near-picked img')?.src !== {before!r}")
    visit.click("#gk-latents-find")
    visit.wait_for_selector("[data-part='spaces.told']:has-text('Your own picture')")
    assert "usual distance" in visit.inner_text('[data-agree="vae"]')
    saved(visit, "#gk-spaces-figure a[data-save=near]", tmp_path, 1 + 4 * 8)
    visit.fill("#gk-near-seed input", "-1")
    visit.click("#gk-latents-find")
    visit.wait_for_selector(".toast-body:has-text('from 0 to')")
    visit.fill("#gk-near-seed input", "5")


def line(visit, tmp_path) -> None:
    before = visit.evaluate(INK, "canvas[data-over=line]")
    visit.click("#gk-latents-walk")
    visit.wait_for_selector("#gk-line [data-part='line.now']:has-text('Halfway')")
    assert visit.locator("#gk-line .gk-row img").count() == 5 * 9
    assert visit.evaluate(INK, "canvas[data-over=line]") != before
    saved(visit, "#gk-line a[data-save=line]", tmp_path, 1 + 4 * 9)
    for name in ("a", "b"):
        visit.fill(f"#gk-{name}-seed input", "7")
    visit.click("#gk-latents-walk")
    visit.wait_for_selector(".toast-body:has-text('same picture')")


def captions(visit, tmp_path) -> None:
    visit.fill("#gk-latents-text textarea", "a dragon by the sea at night")
    visit.click("#gk-latents-compare")
    visit.wait_for_selector("#gk-match [data-part='match.unknown']:has-text('dragon')")
    assert visit.locator("#gk-match .gk-captions li").count() == 7
    assert visit.locator("#gk-match .gk-eight img").count() == 8
    saved(visit, "#gk-match a[data-save=match]", tmp_path, 1 + 1 + 2 + 5 * 2)


def saved(visit, link: str, tmp_path, lines: int) -> None:
    with visit.expect_download() as download:
        visit.click(link)
    download.value.save_as(tmp_path / "data.csv")
    assert len((tmp_path / "data.csv").read_text().splitlines()) == lines


def vietnamese_on_a_phone(visit) -> None:
    visit.click("#gk-language label:has-text('Tiếng Việt')")
    visit.wait_for_selector(".gk-classes button:has-text('đồng cỏ')")
    assert visit.input_value("#gk-latents-attribute input") == "mặt đất"
    visit.click("#gk-theme")
    visit.set_viewport_size({"width": 390, "height": 844})
    visit.wait_for_function("document.documentElement.scrollWidth <= 390")
    boxes = [visit.locator("#gk-spaces-figure .gk-plot").nth(i).bounding_box() for i in range(4)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"]
