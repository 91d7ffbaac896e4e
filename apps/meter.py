"""How well a picture follows its drawing, as the page shows it: a meter, and a sheet of many."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from PIL import Image

from apps.cards import jpeg_url
from apps.text import both, fixed

__all__ = ["ROWS", "meter", "sheet"]

ROWS = (0.0, 0.5, 1.0, 1.5)
"""Strengths, one a row of the sheet."""


def meter(found: Mapping[str, float]) -> str:
    """The bar and its sentence; a word where there is nothing to follow."""
    if not found:
        return f'<p class="gk-note">{both("sketch.meter.none")}</p>'
    kind = "lines" if "f1" in found else "regions"
    share = found.get("f1", found.get("miou", 0.0))
    said = {name: fixed(100 * value, 0) for name, value in found.items() if name != "distance"}
    if "distance" in found:
        said["distance"] = fixed(found["distance"], 1)
    return (
        f"<p><b>{both(f'sketch.meter.{kind}', share=fixed(100 * share, 0))}</b></p>"
        f'<div class="gk-meter-bar"><i style="width:{100 * share:.0f}%"></i></div>'
        f'<p class="gk-note">{both(f"sketch.meter.{kind}.parts", **said)}</p>'
    )


Cell = tuple[Image.Image, float | None]
"""A picture, and how well it follows."""


def sheet(rows: Sequence[Sequence[Cell]], seeds: Sequence[int]) -> str:
    """A table of pictures, one row for each of `ROWS`, one column a seed.

    Args:
        rows: The pictures; rows that are still missing are places.
        seeds: Of the columns.
    """
    head = "".join(f'<th scope="col">{both("cards.seed", seed=seed)}</th>' for seed in seeds)
    lines = []
    for strength, cells in zip_longest(ROWS, rows):
        key = "sketch.sheet.strength" if strength else "sketch.sheet.without"
        name = both(key, strength=fixed(strength, 1))
        places = "".join(map(_cell, cells)) if cells else "<td><i></i>&nbsp;</td>" * len(seeds)
        lines.append(f'<tr><th scope="row">{name}</th>{places}</tr>')
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cell(cell: Cell) -> str:
    image, share = cell
    below = "&nbsp;" if share is None else both("sketch.sheet.share", share=fixed(100 * share, 0))
    return f'<td><img src="{jpeg_url(image)}" alt="">{below}</td>'
