"""A contact sheet: pictures side by side, each with its caption below.

The sheet has ⌈√n⌉ columns unless told otherwise; pictures keep their pixels, captions are wrapped
to the width of a picture. Pillow's own font has no Vietnamese letters, so a font of the system is
looked for; without one, letters lose their marks ("nhà đỏ" is drawn "nha do"), and `has_marks`
says so.
"""

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from genkit.data.picturebook.words import fold

__all__ = ["has_marks", "sheet"]

FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Ubuntu-R.ttf",
    "Arial Unicode.ttf", "Arial.ttf", "arial.ttf", "segoeui.ttf",
)  # fmt: skip
PAPER, INK = (255, 255, 255), (45, 45, 55)
MARGIN, LEADING, POINTS = 10, 1.3, 12
MOST_PIXELS = 200_000_000


def sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str] = (), columns: int | None = None
) -> Image.Image:
    """One RGB picture that shows all.

    Args:
        pictures: At least one, all of one size.
        captions: None at all, or one for each picture.
        columns: Pictures in a row; ⌈√n⌉ where it is not told.

    Raises:
        ValueError: No pictures, different sizes, another number of captions, or a huge sheet.
    """
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"a sheet needs pictures of one size, not of {len(sizes)}; resize them")
    if captions and len(captions) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many captions, not {len(captions)}")
    (width, height) = sizes.pop()
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    texts = [_wrapped(caption, width) for caption in captions]
    line = round(POINTS * LEADING)
    rows = [texts[i : i + columns] for i in range(0, len(texts), columns)]
    below = [4 + line * max(map(len, row)) for row in rows] or [0] * -(-len(pictures) // columns)
    across = columns * (width + MARGIN) + MARGIN
    down = sum(height + space + MARGIN for space in below) + MARGIN
    if across * down > MOST_PIXELS:
        raise ValueError(
            f"the sheet would have {across} × {down} pixels, the limit is {MOST_PIXELS}; "
            "ask for fewer or smaller pictures"
        )
    page = Image.new("RGB", (across, down), PAPER)
    draw = ImageDraw.Draw(page)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left = MARGIN + column * (width + MARGIN)
        top = MARGIN + sum(height + space + MARGIN for space in below[:row])
        page.paste(picture, (left, top))
        for number, text in enumerate(texts[index] if texts else ()):
            draw.text((left, top + height + 4 + number * line), text, INK, _font())
    return page


def has_marks() -> bool:
    """True where the captions are drawn with all Vietnamese letters."""
    font = _font()  # Pillow's own is Aileron, or a bitmap where Pillow lacks FreeType
    return isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] != "Aileron"


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, POINTS)
        except OSError:
            continue
    return ImageFont.load_default(POINTS)


def _wrapped(text: str, width: int) -> list[str]:
    """The caption in lines no wider than `width` pixels (a single long word may be)."""
    lines = [""]
    for word in (text if has_marks() else fold(text)).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
