"""The page 'Sketch' in a real Chromium: strokes by mouse and touch, live and refined pictures."""

import json

import pytest
from conftest import open_page

pytestmark = pytest.mark.browser

STAGE = "document.documentElement.dataset.sketchStage"


@pytest.fixture()
def page(tab, suite):
    open_page(tab, f"{suite}/sketch")
    tab.wait_for_selector("html.gk-sketch-ready", state="attached")
    return tab


def place(page, x: float, y: float) -> tuple[float, float]:
    box = page.locator("#gk-board").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def stroke(page, *points: tuple[float, float]) -> None:
    page.locator("#gk-board").scroll_into_view_if_needed()
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up()


def touch(page, *points: tuple[float, float]) -> None:
    """A finger on the board, through Chromium's own protocol: playwright can only tap."""
    session = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
    for kind, point in zip(kinds, points):
        x, y = place(page, *point)
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def staged(page, stage: str) -> None:
    page.wait_for_function(f"{STAGE} === '{stage}'")


def ink(page) -> int:
    """Dark pixels of the board."""
    return page.evaluate(
        "() => { const board = document.getElementById('gk-board');"
        " const { data } = board.getContext('2d').getImageData(0, 0, 512, 512);"
        " let dark = 0; for (let i = 0; i < data.length; i += 4) dark += data[i] < 128;"
        " return dark; }"
    )


def under(page) -> float:
    """Pixels from the top of the board to the top of the picture."""
    tops = [page.locator(one).bounding_box()["y"] for one in ("#gk-board", ".gk-stack")]
    return tops[1] - tops[0]


def test_a_stroke_a_live_picture_and_a_refined_one(page) -> None:
    below = under(page)
    assert ink(page) == 0 and page.locator(".gk-paper-hint").is_visible()
    stroke(page, (0.1, 0.6), (0.5, 0.4), (0.9, 0.6))
    staged(page, "live")
    assert ink(page) > 500 and not page.locator(".gk-paper-hint").is_visible()
    assert "Live picture" in page.inner_text("#gk-sketch-status")
    staged(page, "done")  # nobody draws: the refined one comes by itself
    assert "20 steps" in page.inner_text("#gk-sketch-status")
    assert "Follows your lines" in page.inner_text("#gk-sketch-view")
    assert under(page) == below, "the picture must not jump"
    page.keyboard.press("Control+z")
    assert ink(page) == 0 and page.locator('[data-part="sketch.picture"]').is_hidden()


def test_nothing_is_drawn_of_a_board_that_was_cleared(page, fake) -> None:
    fake.delay, requests = 0.2, len(fake.requests) + 1
    stroke(page, (0.1, 0.6), (0.9, 0.6))
    while len(fake.requests) < requests:
        page.wait_for_timeout(50)
    page.click('[data-act="clear"]')
    page.wait_for_timeout(4000)
    fake.delay = 0.02
    assert len(fake.requests) == requests
    assert page.locator('[data-part="sketch.picture"]').is_hidden()
    stroke(page, (0.1, 0.4), (0.9, 0.6))
    page.wait_for_selector('[data-part="sketch.picture"]', state="visible")


def test_the_overlay_shows_the_drawing_over_the_picture(page) -> None:
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    staged(page, "live")
    painted = "document.getElementById('gk-overlay').getContext('2d').getImageData(0, 0, 512, 512)"
    shown = f"{painted}.data.some((value) => value > 0)"
    assert not page.evaluate(shown)
    page.locator("#gk-over").fill("70")
    assert page.evaluate(shown)
    assert page.evaluate("document.getElementById('gk-overlay').style.opacity") == "0.7"


def test_strokes_during_a_run_are_asked_for_together_and_none_is_lost(page, fake) -> None:
    fake.delay = 0.15
    requests = len(fake.requests)
    for row in range(6):
        stroke(page, (0.1, 0.1 + 0.1 * row), (0.9, 0.1 + 0.1 * row))
    page.wait_for_function("!document.querySelector('#gk-sketch-draw').disabled")
    staged(page, "live")
    page.wait_for_timeout(2200)
    fake.delay = 0.02
    staged(page, "done")
    runs = len(fake.requests) - requests
    assert 3 <= runs <= 6, f"{runs} runs for six strokes and a refined picture"


def test_a_new_stroke_ends_the_refined_picture(page, fake) -> None:
    page.click("#gk-sketch-live input")  # off: only Draw draws
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    fake.delay = 0.3
    page.click("#gk-sketch-draw")
    staged(page, "step")
    stroke(page, (0.2, 0.8), (0.8, 0.2))
    page.wait_for_selector("#gk-sketch-draw:not([disabled])")
    assert "Stopped" in page.inner_text("#gk-sketch-status")
    fake.delay = 0.02
    page.click("#gk-sketch-draw")
    staged(page, "done")


def test_a_drawing_is_saved_and_opened_again(page, tmp_path) -> None:
    stroke(page, (0.1, 0.5), (0.9, 0.5))
    stroke(page, (0.5, 0.1), (0.5, 0.9))
    drawn = ink(page)
    with page.expect_download() as download:
        page.click('[data-act="save"]')
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    saved = json.loads(path.read_text())
    assert saved["kind"] == "sketch" and len(saved["strokes"]) == 2
    page.click('[data-act="clear"]')
    assert ink(page) == 0
    page.set_input_files("#gk-open-drawing", path)
    page.wait_for_function("!document.querySelector('.gk-paper').classList.contains('gk-empty')")
    assert ink(page) == drawn
    line = {"tool": "brush", "width": 2, "part": 0, "points": [[0.1, 0.2], [0.9, 0.3]]}
    for bad, word in (
        (b"not json", "not a drawing"),
        (json.dumps(saved | {"kind": "__proto__"}).encode(), "not a drawing"),
        (json.dumps(saved | {"paper": "javascript:alert(1)"}).encode(), "not a drawing"),
        (json.dumps(saved | {"strokes": [line | {"points": [[9, 9]]}]}).encode(), "not a drawing"),
        (json.dumps(saved | {"strokes": [line | {"tool": "fill"}]}).encode(), "not a drawing"),
        (json.dumps(saved | {"strokes": [line] * 30_000}).encode(), "more strokes"),
    ):
        file = {"name": "x.json", "mimeType": "application/json", "buffer": bad}
        page.set_input_files("#gk-open-drawing", file)
        page.wait_for_selector("#gk-board-note:not([hidden])")
        assert word in page.inner_text("#gk-board-note") and ink(page) == drawn
    many = json.dumps(saved | {"strokes": [line] * 10_000}).encode()
    file = {"name": "x.json", "mimeType": "application/json", "buffer": many}
    page.set_input_files("#gk-open-drawing", file)
    page.wait_for_function("document.getElementById('gk-board-note').hidden")
    staged(page, "live")
    assert 0 < ink(page) < drawn


def test_a_map_is_painted_filled_and_followed(page) -> None:
    page.click('[data-tab="map"]')
    page.click('[data-tool="fill"]')
    page.mouse.click(*place(page, 0.5, 0.5))
    page.click('[data-paint="9"]')
    page.click('[data-tool="brush"]')
    stroke(page, (0.1, 0.9), (0.9, 0.9))
    staged(page, "live")
    assert "100 %" in page.inner_text("#gk-sketch-view")  # the fake shows the paints
    page.click('[data-tab="sketch"]')
    assert page.locator(".gk-paper-hint").is_visible()
    page.click('[data-tab="map"]')
    assert not page.locator(".gk-paper-hint").is_visible()


def test_an_example_a_download_and_its_receipt(page, tmp_path) -> None:
    page.click('[data-example="sketch"] >> nth=1')
    staged(page, "done")
    drawn = ink(page)
    assert drawn > 1000
    with page.expect_download() as download:
        page.click('[data-part="sketch.save"]')
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    page.click('[data-act="clear"]')
    page.fill("#gk-sketch-prompt textarea", "something else")
    page.set_input_files("#gk-receipts input[type=file]", path)
    page.wait_for_selector("#gk-receipt-note p")
    page.wait_for_function("!document.querySelector('.gk-paper').classList.contains('gk-empty')")
    assert page.input_value("#gk-sketch-prompt textarea") == ""
    assert abs(ink(page) - drawn) < 0.6 * drawn  # of 128² pixels again
    page.click("#gk-verify")
    page.wait_for_selector(".gk-verdict")
    assert "Bit-identical" in page.inner_text(".gk-verdict")


def test_the_same_seed_without_the_drawing_and_the_sheet(page) -> None:
    page.click("#gk-sketch-live input")
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    page.click("#gk-sketch-alone")
    page.wait_for_selector("#gk-alone figure:not([hidden]) img[src]")
    page.wait_for_selector("#gk-sketch-alone:not([disabled])")
    page.click("#gk-sketch-sheet-run")
    page.wait_for_function("document.querySelectorAll('.gk-sheet-table img').length === 16")
    assert "Without the drawing" in page.inner_text("#gk-alone")
    rows = page.locator(".gk-sheet-table th[scope=row]")
    assert rows.all_inner_texts()[1:] == ["strength 0.5", "strength 1.0", "strength 1.5"]


def test_a_photo_becomes_a_drawing_while_the_thresholds_move(page, tmp_path) -> None:
    from genkit.data.picturebook import Scene

    path = tmp_path / "photo.png"
    Scene.random(210_001).render(300).save(path)
    page.click('[data-tab="photo"]')
    page.set_input_files("#gk-photo input[type=file]", path)
    page.wait_for_function("!document.querySelector('.gk-paper').classList.contains('gk-empty')")
    stroke(page, (0.0, 0.02), (1.0, 0.02))
    before = ink(page)
    assert before > 1000
    page.fill("#gk-sketch-high input[type=number]", "300")
    page.wait_for_function(
        f"(() => {{ const b = document.getElementById('gk-board'); const d = b.getContext('2d')"
        f".getImageData(0, 0, 512, 512).data; let n = 0; for (let i = 0; i < d.length; i += 4)"
        f" n += d[i] < 128; return n < {0.9 * before}; }})()"
    )


def test_an_error_is_a_sentence_and_the_next_stroke_works(page) -> None:
    page.click("#gk-sketch-more button")
    page.fill("#gk-sketch-start input[type=number]", "0.9")
    page.fill("#gk-sketch-stop input[type=number]", "0.2")
    page.keyboard.press("Tab")
    stroke(page, (0.2, 0.2), (0.8, 0.8))
    page.wait_for_selector(".toast-body")
    assert "begin before it ends" in page.inner_text(".toast-body")
    page.fill("#gk-sketch-stop input[type=number]", "1")
    page.keyboard.press("Tab")
    stroke(page, (0.2, 0.8), (0.8, 0.2))
    staged(page, "live")


@pytest.fixture()
def phone(chromium, suite):
    visitor = chromium.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, locale="vi-VN"
    )
    visitor.set_default_timeout(60_000)
    page = visitor.new_page()
    open_page(page, f"{suite}/sketch")
    page.wait_for_selector("html.gk-sketch-ready", state="attached")
    yield page
    visitor.close()


def test_a_finger_draws_on_a_phone_and_the_page_does_not_scroll(phone) -> None:
    phone.locator("#gk-board").scroll_into_view_if_needed()
    top = phone.evaluate("scrollY")
    touch(phone, (0.2, 0.2), (0.4, 0.5), (0.6, 0.7), (0.8, 0.9))
    staged(phone, "live")
    assert ink(phone) > 300 and phone.evaluate("scrollY") == top
    assert "Tranh trực tiếp" in phone.inner_text("#gk-sketch-status")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    view, example = phone.locator("#gk-sketch-view"), phone.locator("#gk-sketch-examples")
    assert view.bounding_box()["y"] < example.bounding_box()["y"]
    staged(phone, "done")
    below = [phone.locator(one).bounding_box()["y"] for one in ("#gk-receipts", "#gk-footer")]
    assert below[0] < below[1], "nothing stands below the footer"
