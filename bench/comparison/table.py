# SPDX-License-Identifier: MIT
"""The benchmark table of bench/README.md, in Markdown."""
from .records import CASES, DIRECTIONS


def milliseconds(seconds):
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def cell(record):
    return milliseconds(record["seconds"]) if record else ""


def over_plain(comparison, record, direction):
    plain = comparison.find("mole", "plain", direction, record["T"], record["d"])
    return f"{record['seconds'] / plain['seconds']:.2f}" if plain else ""


def row(comparison, case, direction, tokens, d):
    ours = comparison.find("mole", case, direction, tokens, d)
    cells = [DIRECTIONS[direction], CASES[case], str(d), str(tokens), cell(ours)]
    if comparison.has_torch():
        cells += [cell(comparison.find("PyTorch", case, direction, tokens, d, form))
                  for form in ("published", "vectorized")]
    cells += [cell(comparison.find(peer, case, direction, tokens, d)) for peer in comparison.peers()]
    least = comparison.least_seconds(case, direction, tokens, d)
    cells += [milliseconds(least) if least else "", over_plain(comparison, ours, direction), f"{ours['ideal']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def conditions(comparison):
    facts = comparison.facts
    text = (f"{facts['processor']}, {facts['threads']} of {facts['processors']} processors, load "
            f"{facts['load'][0]:.1f} to {facts['load'][1]:.1f}, {facts['system']}; {facts['compiler']}, "
            f"`{facts['flags']}`")
    if comparison.has_torch():
        text += f"; PyTorch {facts['PyTorch']}"
    if facts["OPENBLAS_CORETYPE"]:
        text += f", `OPENBLAS_CORETYPE={facts['OPENBLAS_CORETYPE']}`"
    return text + f"; {facts['date']}, medians of {facts['rounds']} alternating runs."


def markdown(comparison):
    columns = ["", "layer", "d", "T", "mole"]
    if comparison.has_torch():
        columns += ["PyTorch, published form", "PyTorch, best form"]
    columns += comparison.peers() + ["roofline", "mole / its plain", "ideal"]
    rows = [row(comparison, case, direction, tokens, d) for direction in DIRECTIONS for d in comparison.widths
            for case in comparison.cases for tokens in comparison.tokens
            if comparison.find("mole", case, direction, tokens, d)]
    rule = "|" + "|".join("---" if i < 2 else "---:" for i in range(len(columns))) + "|"
    return "\n".join([conditions(comparison), "Times in ms.", "", "| " + " | ".join(columns) + " |", rule, *rows])
