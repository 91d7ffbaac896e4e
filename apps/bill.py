"""The bill: the bound of one picture under three models, as bars on one axis, a table and a file.

What the pixels cost once the last z is known has one colour (reconstruction, L_0), what the z cost
has another (KL of each level, L_t, L_T): the same two things in every bar.
"""

from apps.cards import table_file
from apps.section import formula
from apps.stack import Bar, Piece, shades, stacked
from apps.text import Pair, both, number, spans
from apps.ways import Bill, Found, Part

__all__ = ["NAMES", "bills", "bits", "bound", "file", "listed"]

NAMES = {"vae": "VAE", "hvae": "HVAE", "diffusion": "DDPM"}
"""The bars, from the top."""
PIXELS = ("reconstruction", "L_0")
GREY = 127.5
MUCH = 10.0
"""σ/α above which all is noise, however much."""
LEAST = 4.0
"""Bits/dim that the axis holds in any case."""


def bills(found: Found) -> dict[str, Bill]:
    """Those that are known, by `NAMES`."""
    known = {"vae": found.cloud.bill, "hvae": found.ladder.bill}
    return known if found.toll is None else known | {"diffusion": found.toll}


def bound(known: dict[str, Bill]) -> str:
    """The chart."""
    bars = []
    for name, label in NAMES.items():
        bill = known.get(name)
        if bill is None:
            bars.append(Bar(label, ()))
            continue
        text = "".join(f'<tspan lang="{one}">{_sum(bill)[one]}</tspan>' for one in ("en", "vi"))
        bars.append(Bar(label, _pieces(bill), bill.error, text))
    return stacked(bars, "bits/dim", LEAST)


def listed(known: dict[str, Bill], name: str) -> str:
    """The parts of a bar as the rows of a table, with the colour of each."""
    bill = known.get(name)
    if bill is None:
        return f'<tr><td colspan="2">{both("ways.bill.later")}</td></tr>'
    pieces = _pieces(bill)
    lines = []
    for part, piece, shade in zip(bill.parts, pieces, shades(pieces)):
        swatch = f'<i class="gk-swatch gk-{piece.side}" style="opacity: {shade}"></i>'
        value = spans(bits(part.bits))
        lines.append(f"<tr><th>{swatch}{_named(part)}</th><td>{value}</td></tr>")
    return "".join(lines)


def file(known: dict[str, Bill]) -> dict[str, str]:
    """All parts as a table."""
    lines = [
        (NAMES[name], part.name, part.low, part.high, part.bits, part.error)
        for name, bill in known.items()
        for part in (*bill.parts, Part("total", bill.bits, bill.error))
    ]
    columns = "model,part,least_sigma_over_alpha,largest_sigma_over_alpha,bits_per_dim,error"
    return table_file("compare-bound.csv", columns, lines)


def _pieces(bill: Bill) -> list[Piece]:
    sides = ("s1" if part.name in PIXELS else "s2" for part in bill.parts)
    return [Piece(side, part.bits) for side, part in zip(sides, bill.parts)]


def _named(part: Part) -> str:
    """The name of a part; that of an L_t says its noise in grey levels."""
    if part.name == "reconstruction":
        return both("ways.part.pixels")
    if part.name == "L_t":
        low, high = (number(GREY * one, 2) for one in (part.low, part.high))
        if part.high > MUCH:
            return formula(both("ways.part.most", low=low))
        return formula(both("ways.part.steps", low=low, high=high))
    if part.name in ("L_0", "L_T"):
        return formula(both(f"ways.part.{'first' if part.name == 'L_0' else 'last'}"))
    return both("ways.part.level", level=part.name)


def _sum(bill: Bill) -> Pair:
    value, error = bits(bill.bits), bits(bill.error)
    return Pair(*(f"{value[one]} ± {error[one]}" for one in ("en", "vi")))


def bits(value: float) -> Pair:
    """Bits/dim with three decimal places, or two digits of what is smaller."""
    text = f"{value:.3f}"
    return number(value, 2) if 0 < abs(value) < 0.0005 else Pair(text, text.replace(".", ","))
