"""Line plots as SVG, without a library: axes, ticks, a legend, colours that are read on white and on black."""

import html
import math

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 46, 56
TEXT = "#7f868e"  # the same contrast with white and with black
GRID = "#7f868e"
COLOURS = ["#e0484d", "#2b83d6", "#d98a1a", "#2f9e5b", "#9a5fd0", "#159a9c", "#c0529b", "#8a7a1f"]
FONT = 'font-family="system-ui, sans-serif" font-size="12"'


class Series:
    """A line: its name and its (x, y) points. A bound is dashed and grey, the first in a plot is drawn last and thick."""

    def __init__(self, name, points, bound=False):
        self.name, self.points, self.bound = name, sorted(points), bound


def ticks(low, high, about=6):
    """Round numbers from low to high."""
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low, high):
    """1, 2 and 5 of each power of ten; powers alone over a wide range."""
    factors = (1,) if high / low > 2e3 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [f * 10.0**p for p in powers for f in factors if low * 0.999 <= f * 10.0**p <= high * 1.001]


class Axis:
    """Maps a range of values to a range of pixels."""

    def __init__(self, low, high, start, end, log):
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def at(self, value):
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        return self.start + (scale(value) - low) / (high - low) * (self.end - self.start)

    def ticks(self):
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)


def span(values, log):
    """The values' range with a little room; never empty."""
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    room = (high - low or abs(high) or 1) * 0.04
    return low - room, high + room


def plot(title, x_label, y_label, series, y_range=None, log_x=False, log_y=False, show_y=str, show_x=str):
    """The SVG's text. Lines that leave y_range are cut off at it."""
    series = [one for one in series if one.points]
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    if not xs:
        raise ValueError(f"plot '{title}' has no points")
    x_axis = Axis(*span(xs, log_x), LEFT, WIDTH - RIGHT, log_x)
    y_axis = Axis(*(y_range or span(ys, log_y)), HEIGHT - BOTTOM, TOP, log_y)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {FONT} fill="{TEXT}">',
        f"<title>{html.escape(title)}</title>",
        f'<clipPath id="area"><rect x="{LEFT}" y="{TOP - 5}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM + 10}"/></clipPath>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{html.escape(title)}</text>',
    ]
    out += axes(x_axis, y_axis, x_label, y_label, show_x, show_y, sorted(set(xs)) if len(set(xs)) <= 10 else None)
    coloured = [(one, GRID if one.bound else COLOURS[n % len(COLOURS)], n == 0) for n, one in enumerate(series)]
    out.append('<g clip-path="url(#area)">')
    for one, colour, first in reversed(coloured):
        out += line(one, colour, first, x_axis, y_axis, show_x, show_y)
    out.append("</g>")
    out += legend(coloured)
    return "\n".join([*out, "</svg>", ""])


def axes(x_axis, y_axis, x_label, y_label, show_x, show_y, marks):
    out = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in y_axis.ticks():
        y = y_axis.at(value)
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}" stroke-opacity=".25"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{html.escape(show_y(value))}</text>')
    for value in marks or x_axis.ticks():
        x = x_axis.at(value)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="{GRID}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{html.escape(show_x(value))}</text>')
    out.append(f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="{GRID}"/>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    out.append(f'<text x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle">{html.escape(x_label)}</text>')
    turn = f'transform="rotate(-90 16 {middle_y})"'
    out.append(f'<text x="16" y="{middle_y}" text-anchor="middle" {turn}>{html.escape(y_label)}</text>')
    return out


def line(one, colour, first, x_axis, y_axis, show_x, show_y):
    points = [(x_axis.at(x), y_axis.at(y)) for x, y in one.points]
    dashes = ' stroke-dasharray="6 4"' if one.bound else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    width = 3 if first else 1.6
    out = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>']
    for (x, y), (x_value, y_value) in zip(points, one.points):
        said = html.escape(f"{one.name}, {show_x(x_value)}: {show_y(y_value)}")
        radius = 4 if first else 2.6
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"><title>{said}</title></circle>')
    return out


def legend(coloured):
    out = []
    for place, (one, colour, first) in enumerate(coloured):
        x, y = WIDTH - RIGHT + 16, TOP + 10 + 20 * place
        dashes = ' stroke-dasharray="6 4"' if one.bound else ""
        width, weight = (3, ' font-weight="600"') if first else (1.6, "")
        out.append(f'<line x1="{x}" x2="{x + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="{width}"{dashes}/>')
        out.append(f'<text x="{x + 30}" y="{y + 4}"{weight}>{html.escape(one.name)}</text>')
    return out
