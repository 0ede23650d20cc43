#!/usr/bin/env python3
"""Writes the benchmark's report from what `switchback-bench rounds` measured: Markdown with tables, and SVG plots.

    bench/report.py bench.json [more.json ...] FOLDER [--command TEXT]

Several files are of one benchmark that was measured in parts: one program on one machine. Figures of a round are compared with those of the same round alone. A figure is a median; what stands in brackets behind it are the quartiles.
"""

import argparse
import json
import pathlib
import statistics

COLOURS = {"switchback": "#1f5fa8", "floor": "#999999", "straight": "#999999"}
OTHER = "#c2571a"
LATENCY = ("one", "open5", "open5-rt", "open20")
# An open loop in which fewer of the requests were answered in time than this part is no open loop any more: its latencies are those of its queue.
KEEPS_UP = 0.98
# Two workers that share the load well take as much processor time a request as one: 1.8 times the throughput on two free cores is this much more.
SHARED_COST = 2 / 1.8


class Table:
    """What was measured of one workload."""

    def __init__(self, raw):
        self.name, self.title = raw["name"], raw["title"]
        self.is_realtime, self.is_together = raw["is_realtime"], raw["is_together"]
        self.contenders = [label for label in raw["contenders"] if any(run["contender"] == label for run in raw["runs"])]
        self.runs = {}
        for run in raw["runs"]:
            self.runs.setdefault(run["contender"], {})[run["round"]] = run["measured"]

    def values(self, label, what):
        """By round."""
        found = {number: what(run) for number, run in self.runs.get(label, {}).items()}
        return {number: value for number, value in found.items() if value is not None}

    def compare(self, label, others, what, how):
        """`how` of this contender's figure and the best one of the others', round by round."""
        mine = self.values(label, what)
        theirs = [self.values(other, what) for other in others]
        if not all(theirs):
            return []
        shared = [number for number in mine if all(number in values for values in theirs)]
        return [how(mine[number], min(values[number] for values in theirs)) for number in shared]


    def keeps_up(self, label):
        """Whether it answered what was asked of it, where that is a matter of rates: as much as the upstream itself."""
        straight, mine = (quartiles(self.values(one, throughput).values()) for one in ("straight", label))
        return not (self.name.startswith("open") and straight) or mine[1] >= KEEPS_UP * straight[1]


def cpu(run):
    return run["cpu_us"] if run["load"]["answers"] else None


def throughput(run):
    return run["per_second"]


def pss(run):
    return run["memory"] and run["memory"]["pss_kib"] / 1024


def latency(name):
    return lambda run: run["load"]["latency"] and run["load"]["latency"][name + "_us"]


def ratio(one, other):
    return one / other


def difference(one, other):
    return one - other


def quartiles(values):
    values = sorted(values)
    if not values:
        return None
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def show(values, digits=1, unit=""):
    found = quartiles(values)
    if not found:
        return ""
    low, middle, high = (f"{value:,.{digits}f}" for value in found)
    return f"{middle}{unit} ({low} - {high})"


def markdown(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]) + "\n"


class Targets:
    """What was promised, beside what was measured."""

    def __init__(self, tables):
        self.tables, self.rows = tables, []

    def add(self, promise, values, limit, digits=2, unit="", at_least=False, goals=()):
        found = quartiles(values)
        if not found:
            self.rows.append([promise, f"{'>=' if at_least else '<='} {limit}{unit}", "not measured", ""])
            return
        middle = found[1]
        is_met = middle >= limit if at_least else middle <= limit
        verdict = "met" if is_met else "**missed**"
        reached = [name for name, goal in goals if middle <= goal]
        self.rows.append([promise, f"{'>=' if at_least else '<='} {limit:g}{unit}", show(values, digits, unit), ", ".join([verdict, *reached])])

    def compare(self, promise, workload, label, others, limit, what=cpu, how=ratio, **more):
        table = self.tables.get(workload)
        self.add(promise, table.compare(label, others, what, how) if table else [], limit, **more)

    def added(self, label, workload, name):
        """What this contender adds to a latency, round by round."""
        table = self.tables.get(workload)
        if not table:
            return {}
        straight, mine = table.values("straight", latency(name)), table.values(label, latency(name))
        return {number: mine[number] - straight[number] for number in mine if number in straight}

    def compare_added(self, promise, workload, name, other, how, limit, **more):
        mine, theirs = self.added("switchback", workload, name), self.added(other, workload, name)
        self.add(promise, [how(mine[number], theirs[number]) for number in mine if theirs.get(number, 0) > 0], limit, **more)


def targets(tables):
    goals = (("goal 0.85 too", 0.85), ("stretch 0.75 too", 0.75))
    found = Targets(tables)
    for workload, words in (("get", "GET 1 KB"), ("split", "split 90/10")):
        for other in ("nginx", "haproxy"):
            found.compare(f"CPU per request, {words}, against {other}", workload, "switchback", [other], 1.0, goals=goals)
    for workload, words in (("post4", "POST 4 KB"), ("post16", "POST 16 KB"), ("http2", "HTTP/2 in"), ("tls", "TLS in")):
        found.compare(f"CPU per request, {words}, against the better one of nginx and haproxy", workload, "switchback", ["nginx", "haproxy"], 1.0)
    for workload, words in (("get", "GET 1 KB"), ("split", "split 90/10")):
        found.compare(f"CPU per request, {words}, against Envoy", workload, "switchback", ["envoy"], 0.33)
        found.compare(f"CPU per request, {words}, against pingora", workload, "switchback", ["pingora"], 0.45)
    found.compare("a programmable policy on a header (`split-rules`, WebAssembly) adds to native code", "policy", "switchback", ["switchback native"], 1.0,
                  how=difference, unit=" us")
    found.compare("the same policy (`split-weighted`) in WebAssembly against native code, whole request", "policy", "switchback split-weighted",
                  ["switchback native"], 1.03, digits=3)
    found.compare_added("added p50 at 5,000 a second, above nginx's", "open5", "p50", "nginx", difference, 10, digits=0, unit=" us")
    found.compare_added("added p50 at 5,000 a second, above nginx's, real-time priority", "open5-rt", "p50", "nginx", difference, 10, digits=0, unit=" us")
    found.compare_added("added p99 at 5,000 a second against nginx's, real-time priority", "open5-rt", "p99", "nginx", ratio, 1.25)
    found.compare_added("added p99 at 5,000 a second against Envoy's, real-time priority", "open5-rt", "p99", "envoy", ratio, 0.333, digits=3)
    found.compare("throughput of one worker, GET 1 KB, against nginx", "get", "switchback", ["nginx"], 1.1, what=throughput, at_least=True)
    found.compare("CPU per request, two workers against one (1.11 is 1.8 times the throughput on two free cores)", "workers", "switchback, 2 workers",
                  ["switchback, 1 worker"], round(SHARED_COST, 2))
    found.compare("memory with idle connections, against haproxy", "idle", "switchback", ["haproxy"], 1.2, what=pss)
    found.compare("CPU per request, 1,000 routes against 1", "routes", "switchback, 1,000 routes", ["switchback, 1 route"], 1.05)
    operations(found, tables.get("operations"))
    return found.rows


def operations(found, table):
    promise = "answers over 10 ms while flags are flipped and plugins swapped, above those of a router that is left alone"
    if not table:
        found.add(promise, [], 0)
        return
    slow = lambda label: sum(table.values(label, lambda run: run["load"]["slow"]).values())
    operated, controls = slow("switchback, flipped and swapped"), [slow("switchback, left alone"), slow("switchback again, left alone")]
    is_met = operated <= max(controls)
    found.rows.append([promise, "none", f"{operated} against {controls[0]} and {controls[1]}", "met" if is_met else "**missed**"])


def bars(path, title, unit, rows):
    """A plain SVG: a bar for each median, a line for its quartiles."""
    rows = [(name, found) for name, found in rows if found]
    if not rows:
        return False
    row, left, width = 24, 250, 400
    most = max(found[2] for _, found in rows) or 1
    least = min(0, min(found[0] for _, found in rows))
    height = 44 + row * len(rows)
    at = lambda value: left + width * (value - least) / (most - least)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="760" height="{height}" fill="white"/><text x="10" y="20" font-size="14">{title}</text>']
    for place, (name, (low, middle, high)) in enumerate(rows):
        y = 36 + row * place
        colour = next((colour for start, colour in COLOURS.items() if name.startswith(start)), OTHER)
        start, end = sorted((at(0), at(middle)))
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{row - 8}" fill="{colour}"/>')
        parts.append(f'<path d="M{at(low):.1f} {y + 8}H{at(high):.1f}" stroke="black" stroke-width="2"/>')
        parts.append(f'<text x="{max(at(high), end) + 6:.0f}" y="{y + 13}">{middle:,.1f} {unit}</text>')
    path.write_text("\n".join(parts + ["</svg>"]) + "\n")
    return True


def failures(run):
    load = run["load"]
    bad = sum(count for status, count in load["statuses"].items() if status != "200")
    return bad + load["lost"] + load["unsent"]


def share(table, label):
    """What part of the answers was not the first upstream's."""
    arms = {}
    for run in table.runs[label].values():
        for arm, count in run["load"]["arms"].items():
            arms[arm] = arms.get(arm, 0) + count
    total = sum(arms.values())
    return ", ".join(f"{arm} {count / total:.1%}" for arm, count in sorted(arms.items())) if total else ""


def moved(table, label):
    return sum(run["load"]["moved"] for run in table.runs[label].values())


def by_cost(table, base):
    head = ["", "CPU per request, us", f"against {base}, same rounds", "requests a second", "its processor", "memory, MiB", "answers by", "users who moved", "failed"]
    rows = []
    for label in table.contenders:
        busy = quartiles(table.values(label, lambda run: run["busy"]).values())
        compared = table.compare(label, [base], cpu, ratio) if base != label else []
        rows.append([label, show(table.values(label, cpu).values()), show(compared, 2), show(table.values(label, throughput).values(), 0),
                     f"{busy[1]:.0%}" if busy else "", show(table.values(label, pss).values(), 0), share(table, label), moved(table, label),
                     sum(failures(run) for run in table.runs[label].values())])
    return markdown(head, rows)


def by_latency(table):
    head = ["", "p50, us", "p90", "p99", "p99.9", "added p50", "added p99", "CPU per request, us", "requests a second", "generator late, p99", "failed or unsent"]
    found = Targets({table.name: table})
    rows = []
    for label in table.contenders:
        keeps_up = table.keeps_up(label)
        at = lambda name: show(table.values(label, latency(name)).values(), 0) if keeps_up else ""
        added = lambda name: show(found.added(label, table.name, name).values(), 0) if keeps_up and label != "straight" else ""
        late = quartiles(table.values(label, lambda run: run["load"]["generator_late_p99_us"]).values())
        rows.append([label if keeps_up else f"{label} (does not keep up)", at("p50"), at("p90"), at("p99"), at("p999"), added("p50"), added("p99"), show(table.values(label, cpu).values()),
                     show(table.values(label, throughput).values(), 0), f"{late[1]:,.0f}" if late else "", sum(failures(run) for run in table.runs[label].values())])
    return markdown(head, rows)


def by_memory(table, base):
    before = lambda run: run["memory_before"] and run["memory_before"]["pss_kib"] / 1024
    rows = [[label, show(table.values(label, before).values(), 1), show(table.values(label, pss).values(), 1), show(table.compare(label, [base], pss, ratio), 2),
             show([(value - table.values(label, before)[number]) * 1024 / table.connections for number, value in table.values(label, pss).items()], 2)]
            for label in table.contenders]
    return markdown(["", "before, MiB", "with them, MiB", f"against {base}, same rounds", "a connection, KiB"], rows)


def by_operation(table):
    rows = []
    for label in table.contenders:
        runs = table.runs[label].values()
        done = [run["done"] for run in runs if run["done"]]
        rows.append([label, sum(one["flips"] for one in done), sum(one["swaps"] for one in done), sum(run["load"]["answers"] for run in runs),
                     sum(run["load"]["slow"] for run in runs), f"{max(latency('max')(run) for run in runs) / 1e3:.1f}",
                     show(table.values(label, latency("p999")).values(), 0), show(table.values(label, cpu).values()), sum(failures(run) for run in runs)])
    return markdown(["", "flips", "plugins", "answers", "over 10 ms", "slowest, ms", "p99.9, us", "CPU per request, us", "failed"], rows)


def added_by_policies(table):
    pairs = [("switchback", "switchback native"), ("switchback split-weighted", "switchback native"), ("nginx Lua", "nginx split_clients"),
             ("nginx njs", "nginx split_clients"), ("haproxy Lua", "haproxy ACL"), ("envoy Lua", "envoy weighted_clusters"),
             ("envoy proxy-wasm", "envoy weighted_clusters")]
    rows = [[f"{one} above {other}", show(table.compare(one, [other], cpu, difference), 2, " us")] for one, other in pairs]
    return markdown(["what a program as the policy adds to a request", "same rounds"], [row for row in rows if row[1]])


def noise(tables):
    rows = []
    for table in tables.values():
        what, words = (pss, "memory") if table.name == "idle" else (cpu, "CPU per request")
        pair = next(((label.replace(" again", ""), label) for label in table.contenders if label.startswith("switchback again")), None)
        if pair:
            rows.append([table.title, words, show(table.compare(pair[1], [pair[0]], what, ratio), 3)])
    return markdown(["workload", "", "switchback against itself, same rounds"], rows)


def section(table, folder):
    unit, what = ("MiB", pss) if table.name == "idle" else ("us", latency("p50")) if table.name in LATENCY else ("us", cpu)
    words = {"MiB": "Memory", "us": "p50 from the scheduled time" if table.name in LATENCY else "CPU per request"}[unit]
    name = f"bench-{table.name}.svg"
    rows = [(label, quartiles(table.values(label, what).values())) for label in table.contenders if table.keeps_up(label)]
    has_plot = bars(folder / name, f"{table.title}: {words}", unit, rows)
    base = next((label for label in table.contenders if label.startswith("nginx")), "switchback")
    if table.name in LATENCY:
        text = by_latency(table)
    elif table.name == "idle":
        text = by_memory(table, "haproxy")
    elif table.name == "operations":
        text = by_operation(table)
    else:
        text = by_cost(table, base)
    if table.name == "policy":
        text += "\n" + added_by_policies(table)
    is_realtime = [run["is_realtime"] for runs in table.runs.values() for run in runs.values()]
    if table.is_realtime and not all(is_realtime):
        text += f"\nReal-time priority could not be had in {is_realtime.count(False)} of {len(is_realtime)} runs.\n"
    others = quartiles([run["others"] for runs in table.runs.values() for run in runs.values() if run["others"] is not None])
    if others:
        text += f"\nWhat else ran on the machine meanwhile used {others[1]:.0%} of a processor at the median, {others[2]:.0%} at the upper quartile.\n"
    plot = f"\n![{table.title}]({name})\n" if has_plot else ""
    return f"## {table.title}\n\n{text}{plot}"


def in_one(paths):
    """What was measured in parts, as if it had been at once."""
    parts = [json.loads(path.read_text()) for path in paths]
    whole = parts[0]
    for path, part in zip(paths, parts):
        for what, mine, first in [(key, part["machine"][key], whole["machine"][key]) for key in ("processor", "cores", "kernel", "commit")] + [
                (key, part[key], whole[key]) for key in ("rounds", "seconds", "warm_up", "connections", "idle_clients")]:
            if mine != first:
                raise SystemExit(f"bench/report.py: {path}: {what} is {mine}, and {first} in {paths[0]}: parts of one report are of one program, one machine and alike")
    for part in parts[1:]:
        names = {one["name"] for one in part["workloads"]}
        whole["workloads"] = [one for one in whole["workloads"] if one["name"] not in names] + part["workloads"]
        whole["left_out"] = [one for one in whole["left_out"] if one["workload"] not in names] + part["left_out"]
        whole["versions"].update(part["versions"])
        whole["arms"].update(part["arms"])
    loads = [float(part["machine"]["load_average"].split()[0]) for part in parts]
    whole["machine"]["load_average"] = f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"
    return whole


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("measured", type=pathlib.Path, nargs="+")
    options.add_argument("folder", type=pathlib.Path)
    options.add_argument("--command", default="make bench")
    options = options.parse_args()
    raw = in_one(options.measured)
    tables = {one["name"]: Table(one) for one in raw["workloads"]}
    for table in tables.values():
        table.connections = raw["idle_clients"]
    options.folder.mkdir(parents=True, exist_ok=True)
    machine = raw["machine"]
    versions = [[peer, version or "", raw["arms"].get(peer, "")] for peer, version in raw["versions"].items() if peer]
    left_out = [[one["workload"], one["contender"], one["why"].replace("|", "/")] for one in raw["left_out"]]
    parts = [
        "# What a request costs, here and elsewhere\n",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['kernel']}, commit {machine['commit']}, `{options.command}`: "
        f"{raw['rounds']} rounds of {raw['seconds']:g} s after {raw['warm_up']:g} s of warm-up, {raw['connections']} connections. Load average before: "
        f"{machine['load_average']}. [docs/PERFORMANCE.md](../../docs/PERFORMANCE.md) says how it is made and how to read it.\n",
        "Figures are medians of the rounds, with quartiles in brackets. What is compared was measured in the same round.\n",
        "## Targets\n\n" + markdown(["", "target", "measured", ""], targets(tables)),
        "## Noise\n\nThe same program with the same config, twice in each round. A difference that is not larger than this says nothing.\n\n" + noise(tables),
        *[section(table, options.folder) for table in tables.values()],
        "## Versions\n\n" + markdown(["peer", "version", "counts what each arm got"], versions),
    ]
    if left_out:
        parts.append("## Left out\n\n" + markdown(["workload", "peer", "why"], left_out))
    (options.folder / "bench.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
