"""The page 'Draw' in a real Chromium, as a visitor uses it."""

import re
from pathlib import Path

import pytest
from conftest import open_page
from PIL import Image

from genkit.asked import Manner

pytestmark = pytest.mark.browser

PROMPT = "a red house with a blue roof on the left, at night"


def write(tab, text: str) -> None:
    tab.fill("#gk-prompt textarea", text)


def draw(tab) -> None:
    tab.click("#gk-draw")


def finished(tab, n: int = 1) -> None:
    tab.wait_for_function(f"document.querySelectorAll('.gk-done').length === {n}")
    tab.wait_for_selector(".gk-score")
    tab.wait_for_selector("#gk-draw:not([disabled])")


def seed_of(tab) -> int:
    return int(tab.input_value("#gk-seed input[type=number]"))


def save(tab, folder: Path) -> Path:
    with tab.expect_download() as download:
        tab.click(".gk-save")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_previews_then_a_picture_with_asked_and_found(tab, fake) -> None:
    fake.delay = 0.1
    write(tab, PROMPT)
    tab.keyboard.press("Control+Enter")
    preview = tab.wait_for_selector("img.gk-preview")
    assert preview.get_attribute("src").startswith("data:image/jpeg")
    place = tab.locator(".gk-frame").first.bounding_box()
    finished(tab)
    after = tab.locator(".gk-frame").first.bounding_box()
    assert place == after, "the picture must not jump when it is finished"
    assert re.search(r"\d of \d found", tab.inner_text(".gk-score"))
    assert tab.locator(".gk-marks li").count() > 2
    fake.delay = 0.02


def test_stop_ends_within_a_step_and_the_next_request_works(tab, fake) -> None:
    fake.delay = 0.3
    write(tab, PROMPT)
    draw(tab)
    tab.wait_for_selector("img.gk-preview")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#gk-draw:not([disabled])")
    closed, steps = fake.closed, fake.steps_done
    tab.wait_for_timeout(1500)
    assert fake.closed >= closed and fake.steps_done <= steps + 2
    assert "Stopped" in tab.inner_text("#gk-status")
    assert tab.locator(".gk-done").count() == 0
    fake.delay = 0.02
    draw(tab)
    finished(tab)


def test_a_saved_picture_restores_its_settings_and_verifies(tab, tmp_path) -> None:
    write(tab, PROMPT)
    tab.fill("#gk-n input[type=number]", "3")
    draw(tab)
    finished(tab, 3)
    seed, path = seed_of(tab), save(tab, tmp_path)
    assert {"parameters", "genkit"} <= set(Image.open(path).info)
    write(tab, "something else")
    tab.fill("#gk-seed input[type=number]", "5")
    drop(tab, path)
    tab.wait_for_function(f"document.querySelector('#gk-prompt textarea').value === '{PROMPT}'")
    assert seed_of(tab) == seed
    assert tab.input_value("#gk-n input[type=number]") == "3"
    assert not tab.is_checked("#gk-randomize_seed input")
    tab.click("#gk-verify")
    tab.wait_for_selector(".gk-verdict")
    assert "Bit-identical" in tab.inner_text(".gk-verdict")


def drop(tab, path: Path) -> None:
    """Drops a file in the middle of the page."""
    script = """(bytes) => { const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], "picture.png", {type: "image/png"}));
        for (const kind of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(kind,
                {dataTransfer: files, bubbles: true, cancelable: true})); }"""
    tab.evaluate(script, list(path.read_bytes()))


def test_vietnamese_at_once_and_after_a_reload(tab, suite) -> None:
    write(tab, PROMPT)
    tab.click("#gk-language label:has-text('Tiếng Việt')")
    tab.wait_for_function("document.querySelector('#gk-draw').innerText.trim() === 'Vẽ'")
    assert tab.get_attribute("#gk-draw", "title").startswith("Vẽ")
    assert "Hạt giống" in tab.inner_text("#gk-seed")
    tab.fill("#gk-seed input[type=number]", "77")
    tab.uncheck("#gk-randomize_seed input")
    tab.wait_for_timeout(500)
    tab.reload()
    tab.wait_for_function("document.querySelector('#gk-draw')?.innerText.trim() === 'Vẽ'")
    tab.wait_for_function(f"document.querySelector('#gk-prompt textarea').value === '{PROMPT}'")
    assert seed_of(tab) == 77
    assert not tab.is_checked("#gk-randomize_seed input")
    script = (
        """[...document.querySelectorAll('body [lang=en]')].filter(e => e.offsetParent).length"""
    )
    english = tab.evaluate(script)
    assert english == 0


def test_a_link_opens_its_state(tab, suite) -> None:
    query = "prompt=two+pines&seed=123&steps=7&guidance=4.5&n=2&sampler=ddim&lang=vi"
    open_page(tab, f"{suite}/prompt?{query}")
    tab.wait_for_function("document.querySelector('#gk-prompt textarea').value === 'two pines'")
    assert seed_of(tab) == 123
    assert not tab.is_checked("#gk-randomize_seed input")
    assert tab.inner_text("#gk-draw") == "Vẽ"
    tab.click("#gk-advanced button")
    assert tab.input_value("#gk-num_inference_steps input[type=number]") == "7"
    tab.click("#gk-link")
    tab.wait_for_selector("#gk-receipt-note p")
    address = tab.evaluate("location.search")
    assert "prompt=two+pines" in address and "seed=123" in address and "lang=vi" in address


def chosen(tab) -> tuple[str, str, str, str]:
    """Model, steps, guidance and sampler, as they stand on the page."""
    numbers = [
        tab.input_value(f"#gk-{name} input[type=number]")
        for name in ("num_inference_steps", "guidance_scale")
    ]
    model = tab.inner_text("#gk-model label.selected")
    return model, *numbers, tab.input_value("#gk-sampler input")


def choose(tab, name: str) -> None:
    tab.click(f"#gk-model label:has-text('{name}')")


def steps_are(tab, steps: int) -> None:
    box = "document.querySelector('#gk-num_inference_steps input[type=number]')"
    tab.wait_for_function(f"{box}.value === '{steps}'")


QUICK = ("Quick · 4 steps", "4", "1", "euler")
CAREFUL = ("Careful · 20 steps", "20", "3", "dpm++2m")


def test_a_model_brings_its_settings_which_can_be_changed(tab, fake) -> None:
    tab.click("#gk-advanced button")
    assert chosen(tab) == CAREFUL
    choose(tab, "Quick")
    steps_are(tab, 4)
    assert chosen(tab) == QUICK
    choose(tab, "Careful")
    steps_are(tab, 20)
    assert chosen(tab) == CAREFUL
    choose(tab, "Quick")
    steps_are(tab, 4)
    tab.fill("#gk-num_inference_steps input[type=number]", "6")
    tab.click("#gk-language label:has-text('Tiếng Việt')")
    tab.wait_for_selector("#gk-model label.selected:has-text('Nhanh · 4 bước')")
    write(tab, PROMPT)
    draw(tab)
    finished(tab)
    assert fake.requests[-1][3] == Manner(6, 1.0, "euler")


def test_a_visit_a_link_and_a_receipt_keep_the_settings_beside_their_model(tab, tmp_path) -> None:
    """None of them is a choice of the visitor, which would set the model's own steps."""
    tab.click("#gk-advanced button")
    choose(tab, "Quick")
    steps_are(tab, 4)
    tab.fill("#gk-num_inference_steps input[type=number]", "6")
    write(tab, PROMPT)
    draw(tab)
    finished(tab)
    path, mine = save(tab, tmp_path), (QUICK[0], "6", *QUICK[2:])
    tab.wait_for_timeout(500)
    open_page(tab, tab.url)
    tab.click("#gk-advanced button")
    assert chosen(tab) == mine
    tab.click("#gk-link")
    tab.wait_for_selector("#gk-receipt-note p")
    link = tab.url
    assert "model=book128_fast" in link and "steps=6" in link
    choose(tab, "Careful")
    steps_are(tab, 20)
    drop(tab, path)
    steps_are(tab, 6)
    assert chosen(tab) == mine
    choose(tab, "Careful")
    steps_are(tab, 20)
    tab.wait_for_timeout(500)
    open_page(tab, link)
    tab.click("#gk-advanced button")
    assert chosen(tab) == mine


def test_without_guidance_nothing_is_left_out_and_the_page_says_so(tab) -> None:
    tab.click("#gk-advanced button")
    write(tab, PROMPT)
    tab.fill("#gk-negative_prompt textarea", "clouds")
    choose(tab, "Quick")
    assert "no effect" in tab.wait_for_selector("#gk-notice .gk-warn").inner_text()
    choose(tab, "Careful")
    tab.wait_for_selector("#gk-notice .gk-warn", state="detached")


def test_a_bad_link_is_told_and_the_page_works(tab, suite) -> None:
    open_page(tab, f"{suite}/prompt?seed=-5&steps=abc&lang=xx&prompt=two+pines")
    toast = tab.wait_for_selector("text=must be a whole number from 0 to")
    assert "-5" in toast.inner_text()
    draw(tab)
    finished(tab)


def test_unknown_words_are_named_and_refusals_are_sentences(tab) -> None:
    write(tab, "a red house and a <b>dragon</b>")
    note = tab.wait_for_selector("#gk-notice .gk-warn")
    assert "dragon" in note.inner_text()
    write(tab, "")
    draw(tab)
    assert tab.wait_for_selector("text=The prompt is empty")
    tab.wait_for_selector("#gk-draw:not([disabled])")
    write(tab, PROMPT)
    draw(tab)
    finished(tab)


def test_seed_is_shown_kept_and_repeats(tab) -> None:
    write(tab, PROMPT)
    draw(tab)
    finished(tab)
    seed, first = seed_of(tab), tab.get_attribute(".gk-done", "src")
    tab.fill("#gk-seed input[type=number]", "9")
    tab.click("#gk-reuse")
    tab.wait_for_function(f"document.querySelector('#gk-seed input[type=number]').value == {seed}")
    draw(tab)
    tab.wait_for_selector("#gk-draw[disabled]")
    finished(tab)
    assert seed_of(tab) == seed and tab.get_attribute(".gk-done", "src") == first


def test_examples_and_surprise_fill_the_prompt(tab) -> None:
    tab.click(".gk-chips button[lang=en] >> nth=0")
    tab.wait_for_function("document.querySelector('#gk-prompt textarea').value.length > 10")
    before = tab.input_value("#gk-prompt textarea")
    tab.click("#gk-surprise")
    tab.wait_for_function(
        "(before) => { const now = document.querySelector('#gk-prompt textarea').value;"
        " return now && now !== before; }", arg=before)  # fmt: skip
    assert tab.input_value("#gk-prompt textarea") not in ("", before)


@pytest.mark.parametrize("path", ["", "prompt"])
@pytest.mark.parametrize("language", ["en", "vi"])
def test_no_sideways_scrolling_on_a_phone(context, suite, path, language) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, f"{suite}/{path}?lang={language}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_mode_follows_the_system_and_can_be_chosen(context, suite) -> None:
    page = context.new_page()
    page.emulate_media(color_scheme="dark")
    open_page(page, suite)
    page.wait_for_selector("body.dark")
    page.click("#gk-theme")
    page.wait_for_selector("body:not(.dark)")
    page.reload()
    page.wait_for_selector("html.gk-ready")
    page.wait_for_timeout(500)
    assert page.locator("body.dark").count() == 0
    page.click(".gk-page")
    page.wait_for_selector("#gk-draw")
    assert page.locator("body.dark").count() == 0
