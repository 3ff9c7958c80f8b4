# SPDX-License-Identifier: MIT
"""What the library is meant to reach beside PyTorch: PyTorch's seconds over those of mole."""
from .records import CASES, DIRECTIONS

GOALS = [  # PyTorch's case and form, T, least ratio to top-2 of mole; forward + backward: no worse
    ("top2", "published", 1, 6.0), ("top2", "vectorized", 1, 1.5),
    ("top2", "published", 16, 3.3), ("top2", "vectorized", 16, 2.3),
    ("top2", "published", 512, 1.3), ("top2", "vectorized", 512, 1.2),
]


def goals(comparison):
    for direction in DIRECTIONS:
        for case, form, tokens, least in GOALS:
            yield direction, case, form, tokens, least
    for tokens in comparison.tokens:
        if tokens >= 16:
            yield "forward", "plain", "vectorized", tokens, 1.0


def verdicts(comparison):
    """A line for each goal at each d that was measured."""
    for direction, case, form, tokens, least in goals(comparison):
        for d in comparison.widths:
            ours = comparison.find("mole", "top2", direction, tokens, d)
            theirs = comparison.find("PyTorch", case, direction, tokens, d, form)
            if ours and theirs:
                ratio = theirs["seconds"] / ours["seconds"]
                yield (f"PyTorch {CASES[case]} ({form}) / mole top-2, {DIRECTIONS[direction]}, T = {tokens}, d = {d}: "
                       f"{ratio:.2f}, goal {least:.2f}, {'met' if ratio >= least else 'MISSED'}")
