"""The page over the repository's own checkpoints: from the first word to the proof."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import open_page
from test_prompt_page import PROMPT, draw, drop, finished, save, seed_of, write

from apps import build, options
from apps.common import embedded
from genkit.runtime import apply, detect

pytestmark = [pytest.mark.browser, pytest.mark.checkpoint]

NEEDED = ("book128_latent", "book128_reader")
VIETNAMESE = "một ngôi nhà màu đỏ mái xanh dương bên trái, ban đêm"


@pytest.fixture(scope="module")
def real(checkpoints: Path) -> Iterator[str]:
    """Address of the suite over the embedded models."""
    for name in NEEDED:
        if not (checkpoints / name / "config.json").is_file():
            pytest.skip(f"checkpoints/{name} is not here: python -m genkit train {name} makes it")
    threads = torch.get_num_threads()
    apply(detect())  # in the main thread, as `apps.launch` does: the server's threads inherit it
    studio = embedded()
    studio.warm()
    blocks = build(studio)
    _, url, _ = blocks.launch(**options(), prevent_thread_lock=True, server_name="127.0.0.1")
    yield url.rstrip("/")
    blocks.close()
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_a_picture_from_the_first_word_to_the_proof(context, real, tmp_path) -> None:
    page = context.new_page()
    page.set_default_timeout(120_000)
    open_page(page, f"{real}/prompt")
    write(page, PROMPT)
    draw(page)
    finished(page)
    assert re.search(r"\d of \d found", page.inner_text(".gk-score"))
    seed, path = seed_of(page), save(page, tmp_path)
    write(page, "something else")
    drop(page, path)
    page.wait_for_function(f"document.querySelector('#gk-prompt textarea').value === '{PROMPT}'")
    assert seed_of(page) == seed
    page.click("#gk-verify")
    page.wait_for_selector(".gk-verdict")
    assert "Bit-identical" in page.inner_text(".gk-verdict")

    page.click("#gk-language label:has-text('Tiếng Việt')")
    page.wait_for_function("document.querySelector('#gk-draw').innerText.trim() === 'Vẽ'")
    write(page, VIETNAMESE)
    draw(page)
    page.wait_for_selector("#gk-draw[disabled]")
    finished(page)
    assert re.search(r"Tìm thấy \d trên \d", page.inner_text(".gk-score"))

    write(page, "zxqwv " * 150)  # fewer than 1,000 characters, more word pieces than are read
    draw(page)
    assert page.wait_for_selector("text=mảnh từ")
    page.wait_for_selector("#gk-draw:not([disabled])")
