"""How soon the page `sketch` shows the picture of a stroke, in a real Chromium.

p50, p95    from the end of a stroke (the event's own clock) to the decoded live picture, the pause
            that gathers strokes and a refined run that the stroke ends included: strokes follow
            each other after random pauses, some of them while the refined picture is drawn
refined s   from the end of a stroke to the refined picture when nobody draws on, the rest included

python -m benchmarks.live [--strokes 60] [--refined 5]
"""

import random
import statistics
from typing import TYPE_CHECKING

import tyro

from benchmarks import save
from benchmarks.latency import tab
from benchmarks.server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

WATCH = """() => {
    window.ended = 0;
    window.shown = {};
    document.getElementById('gk-board').addEventListener('pointerup', (event) => {
        window.ended = event.timeStamp;
        window.shown = {};
    });
    const picture = document.querySelector('[data-part="sketch.picture"]');
    new MutationObserver(async () => {
        const stage = document.documentElement.dataset.sketchStage;
        const ended = window.ended;
        await picture.decode().catch(() => {}); // another one came meanwhile
        requestAnimationFrame(() => {
            if (ended === window.ended) window.shown[stage] ??= performance.now() - ended;
        });
    }).observe(picture, { attributeFilter: ['src'] }); }"""


def stroke(page: "Page", rng: random.Random) -> None:
    """A line somewhere on the board, as a hand draws: in some hundred milliseconds."""
    page.locator("#gk-board").scroll_into_view_if_needed()
    box = page.locator("#gk-board").bounding_box()
    assert box is not None
    points = [(box["x"] + rng.uniform(0.1, 0.9) * box["width"],
               box["y"] + rng.uniform(0.1, 0.9) * box["height"]) for _ in range(3)]  # fmt: skip
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def shown(page: "Page", stage: str) -> float:
    """Seconds from the end of the last stroke to its picture of this stage."""
    page.wait_for_function(f"window.shown['{stage}'] > 0")
    return page.evaluate(f"window.shown['{stage}']") / 1000


def main(strokes: int = 60, refined: int = 5) -> None:
    """Measures the page of this checkout.

    Args:
        strokes: After two that warm up; at least 2.
        refined: Waits for the refined picture, at least 1.
    """
    rng, found, rest = random.Random(0), [], []
    with serving() as server, tab(server, "sketch", "html.gk-sketch-ready") as page:
        page.evaluate(WATCH)
        for index in range(strokes + 2):
            if index % 6 == 0:
                page.click('[data-act="clear"]')
            stroke(page, rng)
            found.append(shown(page, "live"))
            page.wait_for_timeout(1000 * rng.uniform(0.1, 2.4))
        for _ in range(refined):
            stroke(page, rng)
            rest.append(shown(page, "done"))
    found = sorted(found[2:])
    figures = {
        "p50 s": round(statistics.median(found), 3),
        "p95 s": round(statistics.quantiles(found, n=20)[-1], 3),
        "slowest s": round(found[-1], 3),
        "refined s": round(statistics.median(rest), 3),
    }
    save("live", figures | {"strokes": strokes, "refined": refined})


if __name__ == "__main__":
    tyro.cli(main)
