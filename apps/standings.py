"""Standings: the table of all families, and whether what it compares is comparable.

The numbers are those of benchmarks/results/families.json, beside which `benchmarks.families` says
how each of them is measured; nothing is measured here. Of the bits per dimension the table says
what kind of number they are:

    exact       −log₂ P(x)                  bound       at least that many, never less
    estimate    about that many             undefined   the model gives no picture a probability

and of everything that is measured against real pictures, what other real pictures reach. Models of
the same size and the same training are compared; how far they are from that is told in per cent,
(max − min)/max over the families of the table.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.cards import table_file
from apps.common import html_part
from apps.quartet import FAMILIES, title
from apps.section import formula
from apps.text import Pair, both, fixed, number, say, spans

__all__ = ["MEASURES", "Measure", "apart", "read", "section", "table"]

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "families.json"
COLUMNS: Mapping[str, tuple[str, str]] = {
    **{family.checkpoint: (name, family.colour) for name, family in FAMILIES.items()},
    "book32_guided": ("guided", "s7"),
}
"""Checkpoint -> its name in the locale and its colour; of those that the table can hold."""
KINDS = ("exact", "bound", "estimate", "undefined")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A line of the table.

    Args:
        name: Key of the file, and of the locale without blanks.
        best: The better end: "low", "high", "one" (nearest to 1), or none.
        real: Key of what real pictures reach.
        scale: What the number of the file is multiplied by.
        digits: Behind the point; None: two that say something.
    """

    name: str
    best: str = ""
    real: str = ""
    scale: float = 1.0
    digits: int | None = 2

    @property
    def key(self) -> str:
        """Of its name in the locale."""
        name = self.name.replace("/", "").replace(" ", "_")
        return f"standings.{name}"


MEASURES = (
    Measure("bits/dim", "low"),
    Measure("frechet", "low", "floor"),
    Measure("precision", "high", "precision of real"),
    Measure("recall", "high", "recall of real"),
    Measure("sharpness", "one", "sharpness of real"),
    Measure("seconds alone", "low", scale=1000, digits=None),
    Measure("evaluations", "low", digits=0),
    Measure("parameters", scale=1e-6),
    Measure("training PFLOP", digits=2),
    Measure("training minutes", digits=0),
)
SIZE, COST = "parameters", "training PFLOP"
"""What should be equal where families are compared."""
MATCHED, LIGHTER = ("book32_vae", "book32_hvae", "book32_ddpm"), "book32_autoencoder"
"""Whose budgets were made equal; and who is there to show a way of failing, at less cost."""


def read(path: Path = RESULTS) -> dict[str, Row]:
    """Checkpoint -> its numbers, in the order of the columns; empty where there is no file.

    Raises:
        ValueError: The file is damaged or of another form.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())["families"]
        rows = {name: dict(found[name]) for name in COLUMNS if name in found}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path.name} holds no table of families; make it again with "
            "`python -m benchmarks.families`"
        ) from error
    return rows


def table(rows: Mapping[str, Row]) -> str:
    """One line for each measure, one column for each family, the best of a line in bold."""
    head = "".join(f"<th>{title(*COLUMNS[name])}</th>" for name in rows)
    body = []
    for measure in MEASURES:
        values = [_value(row, measure) for row in rows.values()]
        best = _best(values, measure)
        cells = "".join(
            f"<td>{_cell(row, measure, value, value == best)}</td>"
            for row, value in zip(rows.values(), values)
        )
        body.append(f"<tr><th>{both(measure.key)}</th>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def apart(rows: Mapping[str, Row], name: str) -> float:
    """(max − min)/max of a number over the families; NaN where fewer than two have it."""
    values = [value for row in rows.values() if (value := _number(row.get(name))) is not None]
    return (max(values) - min(values)) / max(values) if len(values) > 1 else math.nan


def _value(row: Row, measure: Measure) -> float | None:
    return _number(row.get(measure.name))


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def _best(values: Sequence[float | None], measure: Measure) -> float | None:
    known = [value for value in values if value is not None]
    orders: Mapping[str, Callable[[float], float]] = {
        "low": lambda value: value,
        "high": lambda value: -value,
        "one": lambda value: abs(value - 1),
    }
    return min(known, key=orders[measure.best]) if known and measure.best in orders else None


def _cell(row: Row, measure: Measure, value: float | None, best: bool) -> str:
    """The number, and below it what kind it is or what real pictures reach."""
    kind = row.get("kind") if measure.name == "bits/dim" else None
    if value is None:
        # "undefined" says it all; a number that is missing is a dash.
        return both("standings.kind.undefined") if kind == "undefined" else "–"
    text = _shown(measure.scale * value, measure)
    text = f"<b>{text}</b>" if best else text
    below = ""
    if kind in KINDS:
        below = both(f"standings.kind.{kind}")
    elif measure.real and (real := _number(row.get(measure.real))) is not None:
        below = both("standings.real", real=fixed(real))
    return f"{text}<small>{below}</small>" if below else text


def _shown(value: float, measure: Measure) -> str:
    return spans(number(value, 2) if measure.digits is None else fixed(value, measure.digits))


def _fair(rows: Mapping[str, Row]) -> str:
    """How equal the budgets are, in words; and which families are not in the table."""
    sentences = []
    matched = {name: rows[name] for name in MATCHED if name in rows}
    size, cost = apart(matched, SIZE), apart(matched, COST)
    if not math.isnan(size) and not math.isnan(cost):
        values = {"size": _percent(size), "cost": _percent(cost)}
        names = _listed([COLUMNS[name][0] for name in matched])
        sentences.append(both("standings.fair", names=names, **values))
    most = max((_number(row.get(COST)) or 0 for row in matched.values()), default=0)
    light = _number(rows.get(LIGHTER, {}).get(COST))
    if most and light is not None:
        sentences.append(both("standings.lighter", share=fixed(100 * light / most, 0)))
    missing = [COLUMNS[name][0] for name in COLUMNS if name not in rows]
    if missing:
        sentences.append(both("standings.missing", names=_listed(missing)))
    return " ".join(sentences)


def _percent(share: float) -> Pair:
    return fixed(max(math.ceil(100 * share - 1e-9), 1), 0)


def _listed(names: Sequence[str]) -> Pair:
    english, vietnamese = (
        ", ".join(say(language, f"quartet.{name}") for name in names) for language in ("en", "vi")
    )
    return Pair(english, vietnamese)


def _file(rows: Mapping[str, Row]) -> str:
    """A link to the table as a CSV file."""
    keys = sorted({key for row in rows.values() for key in row})
    lines = [(name, *(_plain(row.get(key)) for key in keys)) for name, row in rows.items()]
    file = table_file("families.csv", ",".join(("checkpoint", *keys)), lines)
    return (
        f'<p class="gk-files"><a class="gk-save" data-save="standings" href="{file["url"]}" '
        f'download="{file["name"]}">{both("standings.csv")}</a></p>'
    )


def _plain(value: Any) -> Any:
    return "" if value is None else value


def section(path: Path = RESULTS) -> None:
    """The table in the current context; a sentence where there is none."""
    lead = f"<h2>{both('standings.title')}</h2><p>{both('standings.lead')}</p>"
    try:
        rows = read(path)
    except ValueError:
        rows = {}
    if not rows:
        html_part(f"{lead}<p class='gk-note'>{both('standings.none')}</p>", elem_id="gk-standings")
        return
    count = max((int(n) for row in rows.values() if (n := _number(row.get("n")))), default=0)
    why = formula(both("standings.why", n=count))
    html_part(
        f'{lead}<div class="gk-standings" tabindex="0">{table(rows)}</div><p>{_fair(rows)}</p>'
        f"<details><summary>{both('noise.why')}</summary><p>{why}</p></details>{_file(rows)}",
        elem_id="gk-standings",
    )
