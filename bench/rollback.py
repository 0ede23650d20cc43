#!/usr/bin/env python3
"""What the shipped rollback policy does to 2,000 rollouts of every kind, beside other methods: bench/results/rollback.md and its plots.

    bench/rollback.py target/release/switchback [--rollouts N] [--keep DIR] [--native]

With --keep each simulation's answer is kept in a folder, and taken from there by the next run: an interrupted run goes on. Every figure comes from `switchback policy simulate`, with its seed; the same binary and seed give the same report.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import time

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
METHODS = ["z-test", "mann-whitney", "msprt"]
THRESHOLD = json.dumps({"min_success_percent": 99, "max_p99_ms": 500, "interval_seconds": 60, "failed_checks": 1, "min_samples": 30})
GOOD = ["aa-five-metrics", "aa-drift-in-ramp", "aa-shared-outage", "aa-late-clicks", "aa-clustered"]
KEEP = None
# Options of every run of the guardrail.
HOW = []
COLOURS = ["#1f5fa8", "#c2571a", "#3a8a4d", "#8a4ba0", "#777777"]


def simulate(binary, *options):
    """The scenarios of one run, by name, and the seconds it took."""
    kept = KEEP / f"{hashlib.sha256(repr(options).encode()).hexdigest()[:16]}.json" if KEEP else None
    if kept and kept.exists():
        found, seconds = json.loads(kept.read_text())
        return found, seconds
    began = time.monotonic()
    done = subprocess.run([binary, "policy", "simulate", *map(str, options), "--json"], check=True, stdout=subprocess.PIPE, text=True)
    found = {scenario["scenario"]: scenario for scenario in json.loads(done.stdout)["scenarios"]}
    seconds = time.monotonic() - began
    if kept:
        kept.write_text(json.dumps([found, seconds]))
    return found, seconds


def percent(part, digits=2):
    return f"{part * 100:.{digits}f} %"


def alarms(found):
    return percent(found["false_alarms"] / found["rollouts"])


def pair(found, what, digits):
    show = lambda value: "never" if value is None else f"{value:,.{digits}f}"
    return f"{show(found[what + '_median'])} / {show(found[what + '_p95'])}"


def ratio(found, what, promised):
    """The worst of median and p95 against what was designed."""
    if not promised:
        return ""
    values = [found[f"{what}_median"], found[f"{what}_p95"]]
    parts = [float("inf") if value is None else value / wanted for value, wanted in zip(values, promised) if wanted]
    return f"{max(parts):.2f}"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]) + "\n"


def line_plot(path, title, x_label, y_label, series):
    """A plain SVG: one line for each series of (x, y), axes from 0."""
    width, height, left, bottom, top = 640, 360, 60, 50, 40
    x_most = max(x for _, points in series for x, _ in points)
    y_most = max([y for _, points in series for _, y in points] + [1e-9])
    at_x = lambda x: left + (width - left - 160) * x / x_most
    at_y = lambda y: height - bottom - (height - bottom - top) * y / y_most
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="20" font-size="14">{title}</text>')
    for step in range(5):
        x, y = x_most * step / 4, y_most * step / 4
        parts.append(f'<text x="{at_x(x):.0f}" y="{height - bottom + 18}" text-anchor="middle">{x:g}</text>')
        parts.append(f'<text x="{left - 6}" y="{at_y(y) + 4:.0f}" text-anchor="end">{y:.3g}</text>')
        parts.append(f'<path d="M{left} {at_y(y):.0f}H{at_x(x_most):.0f}" stroke="#dddddd"/>')
    parts.append(f'<text x="{at_x(x_most / 2):.0f}" y="{height - 10}" text-anchor="middle">{x_label}</text>')
    parts.append(f'<text x="14" y="{height / 2:.0f}" transform="rotate(-90 14 {height / 2:.0f})" text-anchor="middle">{y_label}</text>')
    for place, (name, points) in enumerate(series):
        colour = COLOURS[place % len(COLOURS)]
        path_data = " ".join(f"{'M' if i == 0 else 'L'}{at_x(x):.1f} {at_y(y):.1f}" for i, (x, y) in enumerate(points))
        parts.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{at_x(x_most) + 10:.0f}" y="{top + 20 + 18 * place}" fill="{colour}">{name}</text>')
    path.write_text("\n".join(parts + ["</svg>"]) + "\n")


def bar_plot(path, title, names, series, most):
    """Bars of percentages in groups, cut at `most`."""
    bar, gap, left = 14, 12, 190
    height = 60 + len(names) * (len(series) * bar + gap) + 20 * len(series)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="700" height="{height}" fill="white"/><text x="10" y="20" font-size="14">{title}</text>')
    y = 36
    for index, name in enumerate(names):
        parts.append(f'<text x="{left - 8}" y="{y + len(series) * bar / 2 + 4:.0f}" text-anchor="end">{name}</text>')
        for place, (_, values) in enumerate(series):
            value = values[index]
            width = 430 * min(value, most) / most
            parts.append(f'<rect x="{left}" y="{y}" width="{max(width, 1):.1f}" height="{bar - 2}" fill="{COLOURS[place % len(COLOURS)]}"/>')
            parts.append(f'<text x="{left + width + 5:.0f}" y="{y + bar - 4}" font-size="10">{value:.2f} %</text>')
            y += bar
        y += gap
    for place, (name, _) in enumerate(series):
        parts.append(f'<text x="{left}" y="{y + 12 + 18 * place}" fill="{COLOURS[place % len(COLOURS)]}">{name}</text>')
    path.write_text("\n".join(parts + ["</svg>"]) + "\n")


def false_alarms(binary, rollouts, few):
    good, seconds = {}, 0.0
    for name in GOOD:
        found, more = simulate(binary, "rollback-guardrail", *HOW, "--scenario", name, "--rollouts", rollouts)
        good.update(found)
        seconds += more
    # The breaker has a tenth of the alpha.
    breaker, more = simulate(binary, "rollback-guardrail", *HOW, "--scenario", "aa-local-breaker", "--rollouts", rollouts, "--config", '{"alpha": 0.001}')
    good.update(breaker)
    others = {method: simulate(binary, "--native", "--scenario", "aa", "--rollouts", few, "--instead", method)[0] for method in METHODS}
    others["threshold"] = simulate(binary, "rollback-threshold", "--native", "--scenario", "aa", "--rollouts", few, "--config", THRESHOLD)[0]
    names = list(good)
    head = ["good candidates", "allowed", "guardrail", "upper 95 % bound", *[f"{name}" for name in others]]
    rows = []
    for name in names:
        found = good[name]
        rows.append([name, percent(found["promised"]["false_alarms"]), f"**{alarms(found)}** of {found['rollouts']:,}", percent(found["false_alarms_upper"])]
                    + [alarms(other[name]) for other in others.values()])
    share = lambda found: found["false_alarms"] / found["rollouts"] * 100
    bar_plot(RESULTS / "rollback-false-alarms.svg", "Good candidates that were rolled back", names,
             [("guardrail", [share(good[name]) for name in names])] + [(label, [share(other[name]) for name in names]) for label, other in others.items()], 100)
    return table(head, rows), seconds + more


def detection(binary, rollouts, few):
    harm, _ = simulate(binary, "rollback-guardrail", *HOW, "--scenario", "harm", "--rollouts", rollouts)
    late, _ = simulate(binary, "rollback-guardrail", *HOW, "--scenario", "late", "--rollouts", rollouts)
    rows = []
    for name, found in {**harm, **late}.items():
        promised = found["promised"]
        samples = promised["samples"] or []
        seconds = [value for value in promised["seconds"] if value]
        rows.append([name, " / ".join(f"{value:,.0f}" for value in samples), pair(found, "samples", 0), ratio(found, "samples", samples),
                     " / ".join(f"{value:g}" for value in seconds), pair(found, "seconds", 2), ratio(found, "seconds", seconds),
                     percent(found["false_alarms"] / found["rollouts"])])
    head = ["harm", "samples designed", "measured, median / p95", "ratio", "seconds designed", "measured, median / p95", "ratio", "rolled back before the harm"]
    first = table(head, rows)
    others = {method: simulate(binary, "--native", "--scenario", "harm", "--rollouts", few, "--instead", method)[0] for method in METHODS}
    others["threshold"] = simulate(binary, "rollback-threshold", "--native", "--scenario", "harm", "--rollouts", few, "--config", THRESHOLD)[0]
    rows = []
    for name, found in harm.items():
        wald = "" if found["wald_samples"] is None else f"{found['wald_samples']:,.0f}"
        rows.append([name, wald, pair(found, "samples", 0), *[pair(other[name], "samples", 0) for other in others.values()]])
    return first, table(["harm", "Wald's bound, mean", "guardrail", *others], rows)


def power(binary, rollouts):
    strengths = "0.25,0.5,0.75,1,1.5,2"
    curves, times = [], []
    for name, label in [("errors-1-at-50", "errors 0.1 % -> 1 %"), ("clicks-27-at-50", "clicks 30 % -> 27 %"), ("quality-0.58-at-50", "quality 0.60 -> 0.58")]:
        found, _ = simulate(binary, "--native", "--scenario", name, "--windows", 600, "--strengths", strengths, "--rollouts", rollouts)
        points = list(zip(map(float, strengths.split(",")), found.values()))
        curves.append((label, [(0.0, 0.0)] + [(x, one["detected"] / one["rollouts"] * 100) for x, one in points]))
        times.append((label, [(x, one["seconds_median"]) for x, one in points if one["seconds_median"]]))
    line_plot(RESULTS / "rollback-power.svg", "Seen within 10 minutes at 50 canary requests a second", "strength of the harm", "% of rollouts", curves)
    line_plot(RESULTS / "rollback-delay.svg", "Median delay at 50 canary requests a second", "strength of the harm", "seconds", times)
    rows = [[label, *[f"{y:.0f} %" for _, y in points[1:]]] for label, points in curves]
    return table(["harm at strength", *strengths.split(",")], rows)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("binary")
    options.add_argument("--rollouts", type=int, default=2_000)
    options.add_argument("--keep", type=pathlib.Path)
    options.add_argument("--native", action="store_true", help="native code for the guardrail too: the same verdicts, several times sooner")
    options = options.parse_args()
    global KEEP
    KEEP = options.keep
    HOW.extend(["--native"] if options.native else [])
    if KEEP:
        KEEP.mkdir(parents=True, exist_ok=True)
    few = max(options.rollouts // 10, 50)
    cost = subprocess.run([options.binary, "policy", "bench", "rollback-guardrail", "--seconds", "10", "--json"], check=True, stdout=subprocess.PIPE, text=True)
    cost = json.loads(cost.stdout)
    good, took = false_alarms(options.binary, options.rollouts, few)
    harm, others = detection(options.binary, max(options.rollouts // 4, 50), few)
    curve = power(options.binary, few)
    _, native = simulate(options.binary, "--native", "--scenario", "aa-five-metrics", "--rollouts", options.rollouts * 5)
    cores = os.cpu_count()
    how = "The guardrail's figures are of the WebAssembly component."
    command = f"bench/rollback.py target/release/switchback --rollouts {options.rollouts}"
    if options.native:
        how = "The guardrail's figures are of native code, which agrees with the component bit for bit (a test of `router/src/simulate` holds that)."
        command += " --native"
    text = f"""# The rollback policy on rollouts that never happened

{datetime.date.today():%Y-%m-%d}, {platform.machine()}, {cores} cores, `{command}` (seed 1). [docs/STATISTICS.md](../../docs/STATISTICS.md) says how it
decides, and what the scenarios are. {how}

## Good candidates

A rollback is a false alarm. Other methods: {few} rollouts each; the threshold is 99 % and 500 ms in every minute, as Flagger's tutorial has it.

{good}
![False alarms](rollback-false-alarms.svg)

## Bad candidates

Samples are the candidate's requests from the onset of the harm; seconds are of data, in whole windows. A traffic slice is sealed 2 s after its
window, clicks and quality are used when they are 60 s old.

Each row is {max(options.rollouts // 4, 50):,} rollouts.

{harm}
## The same harm, other methods

Canary samples, median / p95. A method that cries wolf on good candidates is quick on bad ones, so this is to be read beside the first table.
Wald's bound is what a test needs on average that knows both distributions and the onset.

{others}
## Power

Part of the rollouts in which the harm is seen within 600 windows, at 50 canary requests a second.

{curve}
![Power](rollback-power.svg)
![Delay](rollback-delay.svg)

## Cost

| | p50 | p99 |
|---|---|---|
| one evaluation, WebAssembly | {cost['plugin']['p50_ns'] / 1e3:.1f} us | {cost['plugin']['p99_ns'] / 1e3:.1f} us |
| one evaluation, native code | {cost['native_rollback_guardrail']['p50_ns'] / 1e3:.1f} us | {cost['native_rollback_guardrail']['p99_ns'] / 1e3:.1f} us |

The largest state was {cost['state_bytes']:,} bytes. {options.rollouts * 5:,} rollouts of 1,800 windows with five metrics, sampling included, took {native:.0f} s natively on {cores} cores; the guardrail's part of the
first table took {took:.0f} s.
"""
    (RESULTS / "rollback.md").write_text(text)


if __name__ == "__main__":
    main()
