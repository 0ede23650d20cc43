"""Plots of the benchmark's report, as SVG."""

import html
import statistics

COLOURS = {"switchback": "#1f5fa8", "floor": "#999999", "straight": "#999999"}
OTHER = "#c2571a"
# A bar of a plot ends at so many times the median one.
CUT = 4


def bars(path, title, unit, rows):
    """A plain SVG: a bar for each median, a line for its quartiles."""
    rows = [(name, found) for name, found in rows if found]
    if not rows or all(name == "straight" for name, _ in rows):
        return False
    row, left, width = 24, 250, 400
    # One that is far above the others is cut, so that the others can be told apart.
    most = min(max(found[2] for _, found in rows), CUT * statistics.median(found[2] for _, found in rows)) or 1
    least = min(0, min(found[0] for _, found in rows))
    height = 44 + row * len(rows)
    at = lambda value: left + width * (min(value, most) - least) / (most - least)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="760" height="{height}" fill="white"/><text x="10" y="20" font-size="14">{html.escape(title)}</text>']
    for place, (name, (low, middle, high)) in enumerate(rows):
        y = 36 + row * place
        colour = next((colour for start, colour in COLOURS.items() if name.startswith(start)), OTHER)
        start, end = sorted((at(0), at(middle)))
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{row - 8}" fill="{colour}"/>')
        parts.append(f'<path d="M{at(low):.1f} {y + 8}H{at(high):.1f}" stroke="black" stroke-width="2"/>')
        parts.append(f'<text x="{max(at(high), end) + 6:.0f}" y="{y + 13}">{middle:,.1f} {html.escape(unit)}{" (cut)" if high > most else ""}</text>')
    path.write_text("\n".join(parts + ["</svg>"]) + "\n")
    return True
