# SPDX-License-Identifier: MIT
"""Curves over logarithmic axes, as inline SVG. Colors are classes of the page's style sheet."""
import html
import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 330, 262, 58, 42, 12, 42


class Axis:
    """Logarithmic; from `begin` on, over `length` pixels, which may go up."""

    def __init__(self, least, most, begin, length):
        self.low, self.high = math.log10(least), math.log10(most)
        if self.high - self.low < 1e-9:
            self.low, self.high = self.low - 0.5, self.high + 0.5
        self.begin, self.length = begin, length

    def at(self, value):
        return self.begin + self.length * (math.log10(value) - self.low) / (self.high - self.low)


def time_text(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("\u00b5s", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def decades(seconds):
    """The powers of ten around all of `seconds`."""
    return (10.0 ** math.floor(math.log10(min(seconds)) + 1e-9), 10.0 ** math.ceil(math.log10(max(seconds)) - 1e-9))


def text(x, y, anchor, content, css="ink"):
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'


def line(css, x1, y1, x2, y2):
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def frame(x, y, tokens, bounds):
    """Grid, ticks and names of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for exponent in range(round(math.log10(bounds[0])), round(math.log10(bounds[1])) + 1):
        at = y.at(10.0**exponent)
        parts += [line("grid", LEFT, at, right, at), text(LEFT - 6, at + 4, "end", time_text(10.0**exponent))]
    for count in tokens:
        parts += [line("axis", x.at(count), bottom, x.at(count), bottom + 4),
                  text(x.at(count), bottom + 17, "middle", str(count))]
    parts += [line("axis", LEFT, bottom, right, bottom),
              text((LEFT + right) / 2, HEIGHT - 8, "middle", "T, tokens of a call", "soft"),
              text(LEFT, 30, "start", "time of a call", "soft")]
    return parts


def curve(points, css, name, x, y):
    """Points are (T, seconds); each says its value when pointed at."""
    path = " ".join(f"{x.at(t):.1f},{y.at(s):.1f}" for t, s in points)
    marks = "" if css == "limit" else "".join(
        f'<circle class="dot {css}" cx="{x.at(t):.1f}" cy="{y.at(s):.1f}" r="3"><title>'
        f"{html.escape(name)}, T = {t}: {time_text(s)}</title></circle>" for t, s in points)
    return f'<polyline class="curve {css}" points="{path}"/>{marks}'


def plot(title, curves, tokens, bounds):
    """Curves are (class, name, points); bounds of the times are shared by plots that stand together."""
    x = Axis(tokens[0], tokens[-1], LEFT + 8, WIDTH - LEFT - RIGHT - 16)
    y = Axis(*bounds, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)
    parts = frame(x, y, tokens, bounds) + [text(LEFT, 14, "start", title, "ink title")]
    parts += [curve(points, css, name, x, y) for css, name, points in reversed(curves) if points]
    return (f'<svg role="img" aria-label="{html.escape(title)}: time of a call by tokens" width="{WIDTH}" '
            f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>')
