"""An answer for other programs and for a browser: JSON, CSV, and one HTML file with the time as a picture."""

import csv
import io
from html import escape
from typing import Any

from hikeshi.access import method
from hikeshi.access.answer import CLASSES, KINDS, OUTCOMES, Answer, Side, Sums
from hikeshi.access.page import TITLES, filled, size
from hikeshi.access.reconcile import Reconciled
from hikeshi.text import one_line

_STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 220, 60, 24
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15em .7em;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f5f5f5}tr.sorry{background:#fff0c2}
svg{width:100%;height:auto}code{word-break:break-all}.flag{color:#a00;font-weight:bold}
"""


def as_data(answer: Answer, reconciled: Reconciled | None) -> dict[str, Any]:
    """Return all of it as plain data.

    window: {since, until, by, zone}; lb, web: {total, slots: [{begin, hits, bytes, views, visitors, people, bots,
    probes, checks, no_request, kinds, statuses, outcomes}], paths, clients: [{name, hits, who}], distinct_paths,
    distinct_clients}; reconciled: {handed_on_least, handed_on_most, web, reasons, unexplained, flagged, words} or null;
    method: {lines: {lines, counted, malformed, pending, outside}, span, files, problems, losses, gaps, meanings}.
    """
    window = answer.window
    ends = {name: None if at is None else window.time(at).isoformat() for name, at in _ends(answer)}
    return {
        "window": {**ends, "by": window.by, "zone": window.zone.key},
        **{role: side.as_data(window) for role, side in answer.sides.items()},
        "reconciled": reconciled.as_data() if reconciled else None,
        "method": method.as_data(answer),
    }


def _ends(answer: Answer) -> list[tuple[str, int | None]]:
    return [("since", answer.window.since), ("until", answer.window.until)]


def as_csv(answer: Answer) -> str:
    """Return a line for each slot of each side."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    kinds = [f"people_{kind}" for kind in KINDS]
    statuses = [name if name != "none" else "no_status" for name in _STATUSES]
    rows.writerow(
        ["side", "begin", "hits", "bytes", "views", "visitors", *CLASSES.values(), *kinds, *statuses, *OUTCOMES]
    )
    for role, side in answer.sides.items():
        for at, sums in filled(side, answer):
            numbers = [
                sums.hits,
                sums.size,
                sums.views,
                sums.visitors,
                *(sums.classes[name] for name in CLASSES.values()),
            ]
            numbers += [sums.kinds[kind] for kind in KINDS] + [sums.statuses[name] for name in _STATUSES]
            numbers += [sums.outcomes[name] for name in OUTCOMES]
            rows.writerow([role, answer.window.time(at).isoformat() if answer.window.by != "all" else "all", *numbers])
    return out.getvalue()


def as_html(answer: Answer, reconciled: Reconciled | None, title: str) -> str:
    """Return one page that needs nothing else: no script, no font, no picture from anywhere."""
    parts = [f"<h1>{_text(title)}</h1>"]
    for role, side in answer.sides.items():
        total = side.total
        parts.append(
            f"<h2>{TITLES[role]}</h2><p><b>{total.hits}</b> hits, of people {total.classes['people']}: "
            f"<b>{total.views}</b> page views, <b>{total.visitors}</b> visitors; {size(total.size)}</p>"
        )
        parts += [_picture(answer, side), _table(answer, side), _tops(side)]
    if reconciled:
        flag = " class=flag" if reconciled.flagged else ""
        parts.append(
            f"<h2>Both sides compared</h2><p{flag}>{reconciled.least} to {reconciled.most} handed on, {reconciled.web} "
            f"logged by the web servers; {_text(reconciled.words)}</p>"
        )
        parts.append(_list(reconciled.reasons))
    parts += ["<h2>Method</h2>", _list([*method.sentences(answer), *method.MEANINGS])]
    found = method.samples(answer)
    if found:
        parts += ["<h2>Malformed lines</h2>", _list(found, "code")]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _text(words: object) -> str:
    return escape(one_line(words, 500))


def _list(items: list[str], tag: str = "span") -> str:
    return "<ul>" + "".join(f"<li><{tag}>{_text(item)}</{tag}></li>" for item in items) + "</ul>"


def _picture(answer: Answer, side: Side) -> str:
    """Return the time as bars, in which people, others and the sorry page are told apart, the sorry window shaded."""
    slots = filled(side, answer)
    most = max((sums.hits for _, sums in slots), default=0)
    if not most or len(slots) < 2:
        return ""
    wide, high = (_WIDTH - _LEFT) / len(slots), _HEIGHT - _BOTTOM
    shade, bars, marks = [], [], []
    for place, (at, sums) in enumerate(slots):
        left, said = _LEFT + place * wide, _text(answer.window.said(at))
        if sums.outcomes["sorry"]:
            shade.append(f'<rect x="{left:.1f}" y="0" width="{wide:.1f}" height="{high}" fill="#ffe9a8"/>')
        top = float(high)
        shown = sums.classes["people"] - sums.sorry_people
        for number, colour in (
            (shown, "#2a6fb0"),
            (sums.sorry_people, "#d98a00"),
            (sums.hits - sums.classes["people"], "#bbb"),
        ):
            tall = number / most * (high - 10)
            top -= tall
            bars.append(
                f'<rect x="{left + wide * 0.1:.1f}" y="{top:.1f}" width="{wide * 0.8:.1f}" height="{tall:.1f}" '
                f'fill="{colour}"><title>{said}: {number} of {sums.hits}</title></rect>'
            )
        if place % max(1, len(slots) // 12) == 0:
            marks.append(f'<text x="{left:.1f}" y="{_HEIGHT - 6}" font-size="11">{said[-5:]}</text>')
    scale = f'<text x="0" y="12" font-size="11">{most}</text><text x="0" y="{high}" font-size="11">0</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="hits by the {answer.window.by}">'
        + "".join([*shade, *bars, *marks, scale])
        + "</svg><p>blue: people · orange: people who saw the sorry page (those times are shaded) · grey: others</p>"
    )


def _table(answer: Answer, side: Side) -> str:
    head = ["", "hits", "people", "views", "visitors", "bytes", "served", "sorry", "2xx", "3xx", "4xx", "5xx", "bots"]
    rows = [(answer.window.said(at), sums) for at, sums in filled(side, answer)] + [("all", side.total)]
    made = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(_row(name, sums) for name, sums in rows)
    return f"<table><tr>{made}</tr>{body}</table>"


def _row(name: str, sums: Sums) -> str:
    numbers = [
        sums.hits, sums.classes["people"], sums.views, sums.visitors, size(sums.size), sums.outcomes["served"],
        sums.outcomes["sorry"], *(sums.statuses[f"{number}xx"] for number in (2, 3, 4, 5)), sums.classes["bots"],
    ]  # fmt: skip
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    return f"<tr{' class=sorry' if sums.outcomes['sorry'] else ''}><td>{_text(name)}</td>{cells}</tr>"


def _tops(side: Side) -> str:
    made = ""
    for title, tops in (("What people asked for most", side.paths), ("Who came most", side.clients)):
        if tops:
            rows = "".join(
                f"<tr><td><code>{_text(top.name)}</code></td><td>{top.hits}</td><td>{top.who}</td></tr>" for top in tops
            )
            made += f"<h3>{title}</h3><table>{rows}</table>"
    return made
