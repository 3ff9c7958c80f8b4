# SPDX-License-Identifier: MIT
"""A comparison as one HTML page that needs nothing else: no script, no network."""
import html

from . import plot
from .records import CASES, DIRECTIONS
from .table import conditions
from .verdicts import verdicts

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2126; --soft: #626a73; --rule: #dfe2e5;
  --c0: #2f7ed8; --c1: #d9622b; --c2: #1f9d72; --c3: #a04fc4; --c4: #b98a00; --c5: #c93a63; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa3ad; --rule: #343a41;
  --c0: #5b9ff0; --c1: #ef8350; --c2: #3fc493; --c3: #c07ee0; --c4: #d9ae33; --c5: #ec6a8d; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 68rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
p, li { color: var(--soft); max-width: 52rem; } code { overflow-wrap: anywhere; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem 1.25rem; }
.legend { position: sticky; top: 0; background: var(--paper); padding: 0.5rem 0; display: flex; flex-wrap: wrap;
  gap: 0.25rem 1.25rem; border-bottom: 1px solid var(--rule); }
.legend span { display: inline-flex; align-items: center; gap: 0.4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.25rem 0.8rem; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
svg { display: block; font: 12px system-ui, sans-serif; max-width: 100%; }
.ink { fill: var(--ink); } .soft { fill: var(--soft); } .title { font-weight: 600; }
.axis { stroke: var(--soft); } .grid { stroke: var(--rule); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .dot { stroke-width: 1; }
.limit { stroke: var(--ink); stroke-dasharray: 3 3; stroke-width: 1.5; }
""" + " ".join(f".c{i} {{ stroke: var(--c{i}); }} .dot.c{i} {{ fill: var(--c{i}); }}" for i in range(6))


def series(comparison):
    """(class, name, library, form) of each curve."""
    result = [("c0", "mole", "mole", None)]
    if comparison.has_torch():
        result += [("c1", "PyTorch, published form", "PyTorch", "published"),
                   ("c2", "PyTorch, best form", "PyTorch", "vectorized")]
    return result + [(f"c{3 + i % 3}", peer, peer, None) for i, peer in enumerate(comparison.peers())]


def curves(comparison, case, direction, d):
    def points(library, form):
        found = ((t, comparison.find(library, case, direction, t, d, form)) for t in comparison.tokens)
        return [(t, record["seconds"]) for t, record in found if record]

    limits = [(t, comparison.least_seconds(case, direction, t, d)) for t in comparison.tokens]
    return [(css, name, points(library, form)) for css, name, library, form in series(comparison)] + [
        ("limit", "roofline", [(t, s) for t, s in limits if s])]


def figures(comparison, direction, d):
    drawn = {case: curves(comparison, case, direction, d) for case in comparison.cases}
    seconds = [s for all_of in drawn.values() for _, _, points in all_of for _, s in points]
    if not seconds:
        return ""
    bounds = plot.decades(seconds)
    plots = "".join(plot.plot(CASES[case], all_of, comparison.tokens, bounds) for case, all_of in drawn.items())
    return f'<h2>{html.escape(DIRECTIONS[direction])}, d = {d}</h2>\n<div class="maps">{plots}</div>\n'


def shares(comparison, direction):
    """What part of the roofline mole reaches, as a table."""
    head = "".join(f"<th>{d} x {d}, T = {t}</th>" for d in comparison.widths for t in comparison.tokens)
    rows = ""
    for case in comparison.cases:
        cells = ""
        for d in comparison.widths:
            for t in comparison.tokens:
                least = comparison.least_seconds(case, direction, t, d)
                ours = comparison.find("mole", case, direction, t, d)
                cells += f"<td>{100 * least / ours['seconds']:.0f} %</td>" if least and ours else "<td></td>"
        rows += f"<tr><td>{html.escape(CASES[case])}</td>{cells}</tr>\n"
    return (f"<h2>Share of the roofline, {DIRECTIONS[direction]}</h2>\n<div class=\"wide\"><table><thead><tr><th></th>"
            f"{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n")


def legend(comparison):
    def sample(css, name):
        return (f'<span><svg width="28" height="10" aria-hidden="true"><line class="curve {css}" x1="1" y1="5" x2="27" '
                f'y2="5"/></svg>{html.escape(name)}</span>')

    samples = [sample(css, name) for css, name, _, _ in series(comparison)] + [sample("limit", "roofline")]
    return f'<div class="legend">{"".join(samples)}</div>\n'


def page(comparison):
    goals = "".join(f"<li>{html.escape(verdict)}</li>" for verdict in verdicts(comparison))
    missing = "" if comparison.has_torch() else "<p>PyTorch was not at hand: its columns are left out.</p>\n"
    body = f"<h1>mole beside its peers</h1>\n<p>{html.escape(conditions(comparison)).replace('`', '')}</p>\n{missing}"
    body += ("<p>The roofline is the least time that one thread could take: arithmetic at the measured peak of "
             "multiply-adds, or every operand read once at the measured bandwidth for a buffer as large as the frozen "
             "weight, whichever is longer. Weights stay in the cache that holds them.</p>\n") + legend(comparison)
    for direction in DIRECTIONS:
        body += "".join(figures(comparison, direction, d) for d in comparison.widths)
        body += shares(comparison, direction) if comparison.facts.get("threads") == 1 else ""
    if goals:
        body += f"<h2>Goals beside PyTorch</h2>\n<ul>{goals}</ul>\n"
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="'
            f'width=device-width, initial-scale=1"><title>mole beside its peers</title><style>{STYLE}</style></head>\n'
            f"<body>\n{body}</body></html>\n")
