"""What a visitor waits for: `make demo` to a page, and a click on Draw to a picture.

start s          `make demo` to GET / answering 200, median of the starts after the first; the
                 slowest of all, the first included, stands beside it
start cold s     the same with the environment's files dropped from memory before
preview, picture from the click on Draw to the frame that shows the first preview (JPEG) and the
                 finished picture (PNG), read from the clock of a real Chromium's page; one
                 picture at the page's defaults, another test prompt and seed each time
at 30 steps      the same where 30 steps are asked for instead of 20
quick            the same by the quick model, and how many times as fast it is as both
peak memory MB   of the server's processes after all those pictures

python -m benchmarks.latency [--clicks 40] [--starts 3]
"""

import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from apps.settings import CAREFUL, FAST
from benchmarks import save
from benchmarks.server import ROOT, Server, forget, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

WARM_UP, LONGER = 3, 30
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WATCH = """() => {
    const old = document.querySelector("#gk-pictures .gk-done")?.src;
    window.seen = {};
    const note = (name) => requestAnimationFrame(() => {
        if (window.begun && !(name in seen)) seen[name] = performance.now() - window.begun; });
    const look = () => {
        const image = document.querySelector("#gk-pictures img");
        if (image && image.src !== old) {
            if (image.src.startsWith("data:image/jpeg")) note("preview");
            if (image.src.startsWith("data:image/png")) note("picture");
        } };
    window.begun = 0;
    document.querySelector("#gk-draw").addEventListener(
        "click", (event) => { window.begun = event.timeStamp; }, { once: true, capture: true });
    window.watcher?.disconnect();
    window.watcher = new MutationObserver(look);
    watcher.observe(document.body, { subtree: true, childList: true, attributeFilter: ["src"] });
}"""
"""Notes, in the page, when pictures appear after the next click on Draw (milliseconds)."""


@contextmanager
def tab(server: Server, path: str, ready: str) -> "Iterator[Page]":
    """A page of the suite in Debian's Chromium, another one on the path, or playwright's own.

    Args:
        server: Serves the suite.
        path: Of the page.
        ready: Selector of what is there when the page can be used.
    """
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("GENKIT_CHROMIUM"), *map(shutil.which, names)]
    with sync_playwright() as playwright:
        program = next((path for path in found if path), playwright.chromium.executable_path)
        if not Path(program).exists():
            raise FileNotFoundError(
                "no Chromium was found: apt-get install chromium, or set GENKIT_CHROMIUM"
            )
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        page = browser.new_page(locale="en-US", viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(f"{server.url}/{path}")
        page.wait_for_selector(ready, state="attached")
        yield page
        browser.close()


def click(page: "Page", prompt: str) -> dict[str, float]:
    """Draws this prompt; seconds from the click to "preview" and to "picture"."""
    page.fill("#gk-prompt textarea", prompt)
    page.wait_for_timeout(400)  # the page looks the words up; a visitor is slower than this
    page.evaluate(WATCH)
    page.click("#gk-draw")
    page.wait_for_function("window.seen.picture")
    page.wait_for_selector(".gk-score")  # the reader has looked, too
    page.wait_for_selector("#gk-draw:not([disabled])")
    return {name: value / 1000 for name, value in page.evaluate("window.seen").items()}


def visit(server: Server, count: int, query: str) -> list[dict[str, float]]:
    """The times of this many clicks on a page that this query opens, after some that warm up."""
    from genkit.fidelity import prompts

    with tab(server, f"prompt?{query}", "html.gk-open") as page:
        times = [click(page, prompt.text) for prompt in prompts(count + WARM_UP)]
    return times[WARM_UP:]


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and interquartile range over median."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1]
    figures = {"p50 s": middle, "p95 s": p95, "spread %": 100 * (high - low) / middle}
    return {f"{name} {key}": round(value, 3) for key, value in figures.items()}


def main(clicks: int = 40, starts: int = 3) -> None:
    """Measures the suite of this checkout, with the checkpoints that it ships.

    Args:
        clicks: Pictures to draw after those that warm up, at least 2.
        starts: Starts of the suite after one that warms up.
    """
    seconds = []
    for _ in range(starts):
        with serving() as server:
            seconds.append(server.seconds)
    with serving() as server:
        seconds.append(server.seconds)
        times = visit(server, clicks, f"model={CAREFUL}")
        longer = visit(server, clicks, f"model={CAREFUL}&steps={LONGER}")
        quick = visit(server, clicks, f"model={FAST}")
        memory = server.peak_mb()
    # Last, because a virtual machine may stay slow for a while after it gave memory back.
    forget((ROOT / "checkpoints", ROOT / "genkit", ROOT / "apps", Path(sys.prefix)))
    with serving() as server:
        cold = server.seconds
    figures: dict[str, object] = {
        "start s": round(statistics.median(seconds[1:]), 2),
        "start slowest s": round(max(seconds), 2),
        "start cold s": round(cold, 2),
    }
    for name in ("preview", "picture"):
        figures |= summary(name, [one[name] for one in times if name in one])
    others = {f"picture at {LONGER} steps": longer, "quick picture": quick}
    for name, some in others.items():
        figures |= summary(name, [one["picture"] for one in some])
    for name in ("picture", f"picture at {LONGER} steps"):
        share = float(figures[f"{name} p50 s"]) / float(figures["quick picture p50 s"])
        figures[f"quick times as fast as {name}"] = round(share, 2)
    save("latency", figures | {"peak memory MB": round(memory), "clicks": clicks})


if __name__ == "__main__":
    tyro.cli(main)
