"""The claims about the four spaces as the page tells them: a verdict each, and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.atlas import Atlas, Measured
from apps.cards import table_file
from apps.claims import CLAIMS
from apps.common import html_part
from apps.legend import name_of, pair, percent
from apps.section import Live, formula, link, place
from apps.spaces import ATTRIBUTES, ENCODERS
from apps.text import Pair, both, spans
from genkit.probes import NEAREST, Found

__all__ = ["files", "numbers", "section", "slots"]


def numbers(measured: Measured) -> dict[str, Any]:
    """The claims for an API client."""
    found = {}
    for aspect, name in CLAIMS.items():
        verdict = measured.verdict(aspect)
        means = {one: each.value for one, each in measured.aspects[aspect].items()}
        found[aspect] = {"encoder": name, "verdict": verdict.kind, "best": verdict.rival}
        found[aspect] |= {"values": means, "chance": measured.chance(aspect)}
    return found


def slots(atlas: Atlas) -> dict[str, str]:
    """Place -> HTML of everything that the section tells."""
    measured = atlas.measured
    if not measured.probes:
        return {}
    found = {f"truth.{aspect}": _claim(measured, aspect) for aspect in CLAIMS}
    found["truth.aspects"] = _aspects(measured)
    for name in ("probes", "agreements"):
        found[f"truth.{name}"] = _table(getattr(measured, name))
    found["truth.shared"] = _shared(measured)
    kinds = [measured.verdict(aspect).kind for aspect in CLAIMS]
    counts = {"held": kinds.count("true") + kinds.count("rival"), "best": kinds.count("true")}
    found["truth.now"] = both("latents.truth.now", all=len(CLAIMS), **counts)
    best = max(measured.probes, key=lambda name: sum(one.value for one in measured.probes[name]))
    shares = [one.value for one in measured.probes[best]]
    found["truth.best"] = both(f"latents.name.{best}")
    found["truth.mean"] = spans(percent(sum(shares) / len(shares)))
    found["truth.house"] = str(len(atlas.kept.attributes["house"].asked))
    return found


def files(atlas: Atlas) -> dict[str, dict[str, str]]:
    """name of the link -> file with the data of a table."""
    measured = atlas.measured
    rows = [
        (name, label, read.value, read.chance, near.value, near.chance)
        for name in measured.probes
        for label, read, near in zip(ATTRIBUTES, measured.probes[name], measured.agreements[name])
    ]
    columns = "encoder,label,probe,probe_chance,neighbours,neighbours_chance"
    claims = [
        (aspect, name, one.value, one.error, one.chance, name == CLAIMS[aspect])
        for aspect, each in measured.aspects.items()
        for name, one in each.items()
    ]
    heads = "aspect,encoder,mean,standard_error,chance,is_claimed"
    return {
        "probes": table_file("latents-probes.csv", columns, rows),
        "claims": table_file("latents-claims.csv", heads, claims),
    }


def _claim(measured: Measured, aspect: str) -> str:
    """The verdict in a word and the sentence with the numbers behind it."""
    verdict, name = measured.verdict(aspect), CLAIMS[aspect]
    word = f'<b class="gk-{verdict.kind}">{both(f"latents.verdict.{verdict.kind}")}</b>'
    if verdict.kind == "unknown":
        return word
    values = {"value": percent(verdict.value), "chance": percent(measured.chance(aspect))}
    values["name"] = pair(f"latents.name.{name}")
    sentence = both(f"latents.measured.{aspect}", **values)
    if verdict.rival != name:
        rival = measured.aspects[aspect][verdict.rival].value
        named = pair(f"latents.name.{verdict.rival}")
        key = "latents.close" if verdict.kind == "true" else "latents.rival"
        sentence += " " + both(key, name=named, value=percent(rival))
    return f"{word}<span>{sentence}</span>"


def _aspects(measured: Measured) -> str:
    rows = {
        aspect: ({name: one.value for name, one in each.items()}, measured.chance(aspect))
        for aspect, each in measured.aspects.items()
    }
    return _grid({pair(f"latents.aspect.{name}"): row for name, row in rows.items()})


def _table(found: Mapping[str, Sequence[Found]]) -> str:
    """One row for each attribute: every encoder's share, the best in bold, and chance."""
    rows = {}
    for i, label in enumerate(ATTRIBUTES):
        shares = {name: each[i].value for name, each in found.items()}
        rows[name_of(label)] = (shares, next(iter(found.values()))[i].chance)
    return _grid(rows)


def _grid(rows: Mapping[Pair, tuple[Mapping[str, float], float]]) -> str:
    head = "".join(f"<th>{both(f'latents.short.{name}')}</th>" for name in ENCODERS)
    lines = []
    for name, (shares, chance) in rows.items():
        best = max(shares.values())
        cells = []
        for encoder in ENCODERS:
            text = spans(percent(shares[encoder])) if encoder in shares else "–"
            bold = shares.get(encoder) == best
            cells.append(f"<td>{f'<b>{text}</b>' if bold else text}</td>")
        cells.append(f'<td class="gk-chance">{spans(percent(chance))}</td>')
        line = f"<th>{spans(name)}</th>{''.join(cells)}"
        lines.append(f"<tr>{line}</tr>")
    chance = f"<th>{both('latents.chance')}</th>"
    return _framed(f"<th></th>{head}{chance}", lines)


def _shared(measured: Measured) -> str:
    """Neighbours that two spaces have in common."""
    head = "".join(f"<th>{both(f'latents.short.{name}')}</th>" for name in ENCODERS)
    lines = []
    for a in ENCODERS:
        cells = []
        for b in ENCODERS:
            share = measured.shared.get((a, b))
            text = "–" if share is None or a == b else spans(percent(share))
            cells.append(f"<td>{text}</td>")
        lines.append(f"<tr><th>{both(f'latents.short.{a}')}</th>{''.join(cells)}</tr>")
    return _framed(f"<th></th>{head}", lines)


def _framed(head: str, lines: Sequence[str]) -> str:
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def section() -> None:
    """The section in the current context; its places are filled by the answer of the spaces."""
    lead = place("truth.now", "span", content=both("latents.truth.lead"))
    live = {name: Live(f"truth.{name}") for name in ("best", "mean", "house")}
    why = formula(both("latents.truth.why", near=NEAREST, **live))
    links = link("claims", "latents.save.claims") + link("probes", "latents.save.probes")
    html_part(
        f"<h2>{both('latents.truth.title')}</h2><p>{lead}</p>{_figure()}"
        f'<div class="gk-text"><details><summary>{both("noise.why")}</summary><p>{why}</p>'
        f'</details><p class="gk-files">{links}</p></div>',
        elem_id="gk-truth",
    )


def _figure() -> str:
    """A card for each claim, below the plot of its encoder, and the tables."""
    cards = "".join(
        f"<li><q>{both(f'latents.claim.{aspect}')}</q>"
        f"{place(f'truth.{aspect}', 'p', content='<b>…</b>')}</li>"
        for aspect in CLAIMS
    )
    tables = "".join(
        f"<div><h3>{both(f'latents.table.{name}')}</h3>"
        f"{place(f'truth.{name}', look='gk-numbers-of')}</div>"
        for name in ("probes", "agreements", "aspects", "shared")
    )
    return f'<ul class="gk-claims">{cards}</ul><div class="gk-tables">{tables}</div>'
