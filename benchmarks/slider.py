"""How soon the time slider of the page `noise` shows another picture.

p50, p95    from a key on the slider (the event's own clock) to the frame in which both pictures,
            both histograms and all numbers are those of the new time, in a real Chromium
change      from another T, typed, to new figures on the page, with the request that it makes

python -m benchmarks.slider [--moves 200] [--changes 10]
"""

import statistics
from typing import TYPE_CHECKING

import tyro

from benchmarks import save
from benchmarks.latency import tab
from benchmarks.server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

WATCH = """() => {
    window.moves = [];
    const slider = document.getElementById('gk-time');
    // After the page's own listener, which stands on the document: the next frame shows it all.
    window.addEventListener('input', (event) => {
        if (event.target !== slider) return;
        const begun = event.timeStamp;
        requestAnimationFrame(() => setTimeout(() => moves.push(performance.now() - begun)));
    }); }"""


def move(page: "Page", count: int) -> list[float]:
    """Milliseconds of so many moves, to and fro."""
    page.evaluate(WATCH)
    page.focus("#gk-time")
    for index in range(count):
        page.keyboard.press("ArrowRight" if index // 12 % 2 == 0 else "ArrowLeft")
        page.wait_for_function(f"window.moves.length === {index + 1}")
    return page.evaluate("window.moves")


def change(page: "Page", count: int) -> list[float]:
    """Milliseconds from the last key of another T to the figures of that T."""
    found = []
    for index in range(count):
        steps = 500 + 25 * (index % 2) + index
        page.evaluate(
            """(steps) => { window.done = 0; window.begun = 0;
            const place = document.querySelector('[data-slot=title-a]');
            document.querySelector('#gk-a-T input').addEventListener(
                'input', (event) => { window.begun = event.timeStamp; });
            new MutationObserver((_, watcher) => { if (place.innerText.endsWith('= ' + steps)) {
                watcher.disconnect();
                requestAnimationFrame(() => { window.done = performance.now() - window.begun; });
            } }).observe(place, { childList: true, characterData: true, subtree: true }); }""",
            steps,
        )
        page.fill("#gk-a-T input", str(steps))
        page.wait_for_function("window.done > 0")
        found.append(page.evaluate("window.done"))
    return found


def main(moves: int = 200, changes: int = 10) -> None:
    """Measures the page of this checkout.

    Args:
        moves: Of the slider, at least 2.
        changes: Of the steps of a schedule, at least 2.
    """
    with serving() as server, tab(server, "noise", "html.gk-shown") as page:
        page.wait_for_timeout(1000)
        times, changed = move(page, moves), change(page, changes)
    save(
        "slider",
        {
            "p50 ms": round(statistics.median(times), 1),
            "p95 ms": round(statistics.quantiles(times, n=20, method="inclusive")[-1], 1),
            "slowest ms": round(max(times), 1),
            "change p50 ms": round(statistics.median(changed), 1),
            "change slowest ms": round(max(changed), 1),
            "moves": moves,
            "changes": changes,
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
