#!/usr/bin/env python3
"""Writes the benchmark's report from what `switchback-bench rounds` measured: Markdown with tables, and SVG plots.

    bench/report.py bench.json [more.json ...] FOLDER [--command TEXT] [--instructions FILE]

Several files are of one benchmark that was measured in parts: one program on one machine. Figures of a round are compared with those of the same round alone. A figure is a median; what stands in brackets behind it are the quartiles.
A run in which anything failed is in no figure. FILE is what `bench/instructions.py ROUTER --json` wrote about the same program.
"""

import argparse
import pathlib
import random
import statistics

from measured import fail, in_one, instructions_of_split
from plots import bars

LATENCY = ("one", "open5", "open5-rt", "open20")
# An open loop in which fewer of the requests were answered in time than this part is no open loop any more: its latencies are those of its queue.
KEEPS_UP = 0.98
# Two workers that share the load well take as much processor time a request as one: 1.8 times the throughput on two free cores is this much more.
SHARED_COST = 2 / 1.8
# A contender of which a larger part of the runs failed is compared with nobody.
MAY_FAIL = 0.1
# Fewer rounds than this say little.
ROUNDS = 20
# A proxy whose processor is less busy than this is not saturated, and costs more for each request.
BUSY = 0.9
# With more of a processor used by others than this, figures are disturbed.
OTHERS = 0.05
# What comes by chance less often than this is no chance.
UNLIKELY = 0.05
# Workloads in which a tenth of the users is another backend's, or somewhat more. Shares of a hash of 2,000 users lie within these bounds.
SPLIT = ("split", "policy", "h2-upstream", "workers", "open5", "open5-rt", "open20")
SHARES = (0.05, 0.25)


class Table:
    """What was measured of one workload."""

    def __init__(self, raw, rounds, connections):
        self.name, self.title, self.connections = raw["name"], raw["title"], connections
        # Rounds in which contenders run side by side are several for each time that they are started.
        self.turns = raw.get("turns", 1)
        self.rounds = rounds * self.turns
        self.is_realtime, self.is_together = raw["is_realtime"], raw["is_together"]
        self.contenders = [label for label in raw["contenders"] if any(run["contender"] == label for run in raw["runs"])]
        self.runs = {}
        for run in raw["runs"]:
            self.runs.setdefault(run["contender"], {})[run["round"]] = run["measured"]
        # Where it was interrupted, rounds that never began are nobody's failure.
        self.begun = 1 + max((run["round"] for run in raw["runs"]), default=-1)
        # The router under two names, where both were measured.
        again = next((label for label in self.contenders if label.startswith("switchback again")), "")
        self.pair = (again, again.replace(" again", "")) if again.replace(" again", "") in self.contenders else None

    def is_clean(self, run):
        """Whether every request got its answer. What an open loop never sent is a matter of keeping up."""
        return failures(run) == (run["load"]["unsent"] if self.name.startswith("open") else 0)

    def is_split(self, label, run):
        """Whether it did what was asked where users are split: the share of another backend, and no user with two of them."""
        arms = run["load"]["arms"]
        if self.name not in SPLIT or label.startswith(("straight", "floor")) or not arms:
            return True
        least, most = SHARES
        return run["load"]["moved"] == 0 and least <= 1 - arms.get("blue", 0) / sum(arms.values()) <= most

    def counts(self, label):
        """Runs that are figures, by round."""
        return {number: run for number, run in self.runs.get(label, {}).items() if self.is_clean(run) and self.is_split(label, run)}

    def values(self, label, what):
        """By round."""
        found = {number: what(run) for number, run in self.counts(label).items()}
        return {number: value for number, value in found.items() if value is not None}

    def compare(self, label, others, what, how):
        """`how` of this contender's figure and the best one of the others', round by round."""
        mine = self.values(label, what)
        theirs = [self.values(other, what) for other in others]
        if not all(theirs):
            return []
        shared = [number for number in mine if all(number in values for values in theirs)]
        return [how(mine[number], min(values[number] for values in theirs)) for number in shared]

    def added(self, label, base, what):
        """What this contender's figure is above that of another one, by round."""
        mine, theirs = self.values(label, what), self.values(base, what)
        return {number: mine[number] - theirs[number] for number in mine if number in theirs}

    def keeps_up(self, label):
        """Whether it answered what was asked of it, where that is a matter of rates: as much as the upstream itself."""
        straight, mine = (quartiles([run["per_second"] for run in self.runs.get(one, {}).values()]) for one in ("straight", label))
        return not (self.name.startswith("open") and straight and mine) or mine[1] >= KEEPS_UP * straight[1]

    def failing(self, labels):
        """Who of these failed too often to be compared, in words. A round without a run is one that came to no end."""
        if not all(label in self.runs for label in labels):
            return None
        for label in labels:
            runs = self.runs[label]
            failed = self.begun - sum(map(self.is_clean, runs.values()))
            if failed == self.begun or failed > MAY_FAIL * self.begun:
                return f"{label}: {failed} of {self.begun} runs had failures"
            other = sum(not self.is_split(label, run) for run in runs.values())
            if other > MAY_FAIL * self.begun:
                return f"{label}: in {other} of {self.begun} runs users were not split as was asked"
        return None

    def idling(self, labels):
        """Whose processor was not busy under a load that is to saturate it, in words. Where everybody shares all processors nobody has one."""
        if self.is_together:
            return []
        busy = {label: quartiles(self.values(label, lambda run: run["busy"]).values()) for label in labels}
        return [f"processor {100 * found[1]:.0f} % busy ({label})" for label, found in busy.items() if found and found[1] < BUSY]

    def is_disturbed(self):
        others = self.others()
        return others is not None and others[2] > OTHERS

    def others(self):
        """Quartiles of what else ran on the machine, in processors. It is known in hundredths of a second: turns are taken together."""
        groups = {}
        for label, runs in self.runs.items():
            for number, run in runs.items():
                if run["others"] is not None:
                    groups.setdefault((label, number // self.turns), []).append(run["others"])
        return quartiles([max(0, statistics.fmean(group)) for group in groups.values()])


def cpu(run):
    return (run["cpu_us"] or None) if run["load"]["answers"] else None


def throughput(run):
    return run["per_second"] or None


def mib(memory):
    """Nothing where there is none: a process that is gone holds nothing."""
    return memory["pss_kib"] / 1024 if memory and memory["pss_kib"] else None


def pss(run):
    return mib(run["memory"])


def anonymous(run):
    return run["memory"]["anonymous_kib"] / 1024 if run["memory"] else None


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


def is_beyond(found, limit, pair, neutral, at_least):
    """Whether a limit is kept by more than noise: by the worse quartile too, and by more than the same program differs from itself."""
    low, middle, high = found
    is_kept = low >= limit if at_least else high <= limit
    return is_kept and pair is not None and abs(pair[1] - neutral) < abs(middle - limit)


def verdict(found, limit, at_least, is_kept):
    low, middle, high = found
    if middle >= limit if at_least else middle <= limit:
        return "met, beyond noise" if is_kept else "met, not beyond noise"
    return "missed, within noise" if low <= limit <= high else "**missed**"


def few(rounds):
    return [f"of {rounds:.0f} rounds only"] if rounds < ROUNDS else []


def doubts(table, labels, what):
    """Why a figure may be of something else than of these contenders, in words."""
    found = table.idling(labels) if what in (cpu, throughput) else []
    return found + ["disturbed"] * table.is_disturbed()


def shared_rounds(mine, theirs, how):
    """Of two added figures: what they compare to, and in how many rounds that has no meaning, since one of them added nothing."""
    shared = [number for number in mine if number in theirs]
    kept = shared if how is difference else [number for number in shared if mine[number] > 0 and theirs[number] > 0]
    return [how(mine[number], theirs[number]) for number in kept], len(shared) - len(kept)


class Targets:
    """What was promised, beside what was measured."""

    def __init__(self, tables):
        self.tables, self.rows = tables, []

    def add(self, promise, values, limit, how=None, pair=(), digits=2, unit="", at_least=False, goals=(), notes=(), why_not=None, doubts=(), turns=1):
        """`pair` is the same of the router against itself; `why_not` says why there is no verdict, `doubts` why nothing is beyond noise. So many `turns` are of one start."""
        target = f"{'>=' if at_least else '<='} {limit:,g}{unit}"
        found, pair, neutral = quartiles(values), quartiles(pair), 0 if how is difference else 1
        if why_not or not found:
            self.rows.append([promise, target, "", f"not shown: {why_not}"] if why_not else [promise, target, "not measured", ""])
            return
        doubts = [*doubts, *few(len(values) / turns)]
        is_kept = lambda limit: not doubts and is_beyond(found, limit, pair, neutral, at_least)
        reached = [name if is_kept(goal) else f"{name} (not beyond noise)" for name, goal in goals if found[1] <= goal]
        words = [verdict(found, limit, at_least, is_kept(limit)), *reached, *notes, *doubts]
        self.rows.append([promise, target, show(values, digits, unit), ", ".join(words)])

    def compare(self, promise, workload, label, others, limit, what=cpu, how=ratio, **more):
        table = self.tables.get(workload)
        if not table:
            self.add(promise, [], limit, **more)
            return
        labels = [label, *others]
        pair = table.compare(table.pair[0], [table.pair[1]], what, how) if table.pair else []
        self.add(promise, table.compare(label, others, what, how), limit, how=how, pair=pair, why_not=table.failing(labels), doubts=doubts(table, labels, what), turns=table.turns, **more)

    def compare_added(self, promise, workload, what, mine, theirs, how, limit, **more):
        """Of what two contenders add: each of them is named with the one that it is above."""
        table = self.tables.get(workload)
        if not table:
            self.add(promise, [], limit, **more)
            return
        values, left_out = shared_rounds(table.added(*mine, what), table.added(*theirs, what), how)
        again = table.added(table.pair[0], mine[1], what) if table.pair else {}
        pair, _ = shared_rounds(again, table.added(*mine, what), how)
        labels = list(dict.fromkeys([*mine, *theirs]))
        why_not = next((f"{label} does not keep up" for label in labels if not table.keeps_up(label)), None) or table.failing(labels)
        if len(values) < left_out:
            why_not = why_not or f"noise: in {left_out} of {len(values) + left_out} rounds one of the two added nothing"
        notes = [f"{left_out} rounds left out in which one of the two added nothing"] if left_out else []
        self.add(promise, values, limit, how=how, pair=pair, notes=notes, why_not=why_not, doubts=doubts(table, labels, what), turns=table.turns, **more)


def targets(tables, instructions=None):
    found = Targets(tables)
    requests(found)
    policies(found)
    if instructions:
        is_met = instructions <= 22_000
        found.rows.append(["user instructions per query, split", "<= 22,000", f"{instructions:,}", "met" if is_met else "**missed**"])
    else:
        found.add("user instructions per query, split", [], 22_000)
    latencies(found)
    found.compare("throughput of one worker, GET 1 KB, against nginx", "get", "switchback", ["nginx"], 1.1, what=throughput, at_least=True)
    found.compare("CPU per request, two workers against one (1.11 is 1.8 times the throughput on two free cores)", "workers", "switchback, 2 workers",
                  ["switchback, 1 worker"], round(SHARED_COST, 2))
    found.compare("memory with idle connections, against haproxy", "idle", "switchback", ["haproxy"], 1.2, what=pss)
    found.compare("CPU per request, 1,000 routes against 1", "routes", "switchback, 1,000 routes", ["switchback, 1 route"], 1.05)
    operations(found, tables.get("operations"))
    return found.rows


def requests(found):
    goals = (("goal 0.85 too", 0.85), ("stretch 0.75 too", 0.75))
    for workload, words in (("get", "GET 1 KB"), ("split", "split 90/10")):
        for other in ("nginx", "haproxy"):
            found.compare(f"CPU per request, {words}, against {other}", workload, "switchback", [other], 1.0, goals=goals)
    post = (("goal 0.95 too", 0.95),)
    for workload, words, goals in (("post4", "POST 4 KB", post), ("post16", "POST 16 KB", post), ("http2", "HTTP/2 in", ()), ("tls", "TLS in", ())):
        found.compare(f"CPU per request, {words}, against the better one of nginx and haproxy", workload, "switchback", ["nginx", "haproxy"], 1.0, goals=goals)
    for workload, words in (("get", "GET 1 KB"), ("split", "split 90/10"), ("post4", "POST 4 KB"), ("post16", "POST 16 KB"), ("http2", "HTTP/2 in"), ("tls", "TLS in")):
        found.compare(f"CPU per request, {words}, against Envoy", workload, "switchback", ["envoy"], 0.33)
        found.compare(f"CPU per request, {words}, against pingora", workload, "switchback", ["pingora"], 0.45)
    for other, words in (("switchback, HTTP/1.1", "ours over HTTP/1.1"), ("floor, HTTP/1.1", "the floor, which speaks HTTP/1.1")):
        found.compare(f"CPU per request, HTTP/2 to the backends, against {words}", "h2-upstream", "switchback", [other], 1.0)
    found.compare("CPU per request, HTTP/2 on both sides (h2load, 8 connections of 8 streams, one user), against the floor, which speaks HTTP/1.1", "h2-upstream", "switchback, HTTP/2 on both sides",
                  ["floor, HTTP/1.1"], 1.0)


def policies(found):
    ours, nginx = ("switchback", "switchback native"), ("nginx Lua", "nginx split_clients")
    found.compare("a programmable policy on a header (`split-rules`, WebAssembly) adds to native code", "policy", "switchback", ["switchback native"], 1.0,
                  how=difference, unit=" us")
    found.compare_added("a programmable policy on a header adds, above what nginx Lua adds", "policy", cpu, ours, nginx, difference, 0, unit=" us")
    for other, words in ((("envoy proxy-wasm", "envoy weighted_clusters"), "Envoy proxy-wasm"), (("haproxy Lua", "haproxy ACL"), "HAProxy Lua")):
        found.compare_added(f"a programmable policy on a header adds, against what {words} adds", "policy", cpu, ours, other, ratio, 0.1, digits=3)
    found.compare("the same policy (`split-weighted`) in WebAssembly against native code, whole request", "policy", "switchback split-weighted",
                  ["switchback native"], 1.03, digits=3)


def latencies(found):
    def added(promise, workload, name, other, how, limit, **more):
        found.compare_added(promise, workload, latency(name), ("switchback", "straight"), (other, "straight"), how, limit, **more)

    added("added p50 at 5,000 a second, above nginx's", "open5", "p50", "nginx", difference, 10, digits=0, unit=" us")
    added("added p50 at 5,000 a second, above nginx's, real-time priority", "open5-rt", "p50", "nginx", difference, 10, digits=0, unit=" us")
    added("added p99 at 5,000 a second against nginx's, real-time priority", "open5-rt", "p99", "nginx", ratio, 1.25)
    added("added p99 at 5,000 a second against Envoy's, real-time priority", "open5-rt", "p99", "envoy", ratio, 0.333, digits=3)


def chance(rounds, draws=20_000):
    """How often what distinguishes the first of each round from the mean of the others would be as large, were it anybody's: names are drawn anew in each round (a
    permutation test). Slow answers come in bursts, so that their number says less than it seems; rounds do not."""
    excess = [[one - (sum(values) - one) / (len(values) - 1) for one in values] for values in rounds]
    seen = sum(values[0] for values in excess)
    draw = random.Random(1)
    as_much = sum(sum(map(draw.choice, excess)) >= seen - 1e-12 for _ in range(draws))
    return (as_much + 1) / (draws + 1)


def operations(found, table):
    """Slow answers as a share of all, round by round, against those of the two that are left alone; and the same of one of those two."""
    promise = "answers over 10 ms while flags are flipped and plugins swapped, a million, above those of a router that is left alone"
    operated, controls = "switchback, flipped and swapped", ["switchback, left alone", "switchback again, left alone"]
    labels, target = [operated, *controls], f"by chance in {UNLIKELY:.0%} or more"
    if why_not := table and table.failing(labels):
        found.rows.append([promise, target, "", f"not shown: {why_not}"])
        return
    shares = [table.values(label, lambda run: run["load"]["answers"] and run["load"]["slow"] / run["load"]["answers"]) for label in labels] if table else []
    rounds = [[values[number] for values in shares] for number in (shares[0] if shares else []) if all(number in values for values in shares)]
    if not rounds:
        found.rows.append([promise, target, "not measured", ""])
        return
    means = [f"{1e6 * statistics.fmean(values):,.0f}" for values in zip(*rounds)]
    stalls = [sum(value > 0 for value in values) for values in zip(*rounds)]
    likely = chance(rounds)
    of_control = min(chance([[one, other] for _, one, other in rounds]), chance([[other, one] for _, one, other in rounds]))
    measured = (f"{means[0]} (in {stalls[0]} of {len(rounds)} rounds); controls {means[1]} ({stalls[1]}) and {means[2]} ({stalls[2]}): so much more by chance in {likely:.0%}, "
                f"and of one control above the other in {of_control:.0%}")
    unlike = ["controls differ too"] if of_control < UNLIKELY / 2 else []
    found.rows.append([promise, target, measured, ", ".join(["met" if likely >= UNLIKELY else "**missed**", *few(len(rounds)), *unlike, *["disturbed"] * table.is_disturbed()])])


def disturbed(tables):
    """Which workloads somebody else disturbed, in a line; nothing where there are none."""
    names = [f"`{table.name}` ({table.others()[2]:.0%})" for table in tables.values() if table.is_disturbed()]
    if not names:
        return ""
    return f"\nFigures of these workloads were disturbed: something else on the machine used over {OTHERS:.0%} of a processor at the upper quartile: {', '.join(names)}.\n"


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
    head = ["", "CPU per request, us", f"against {base}, same rounds", "requests a second", "its processor", "memory in no file, MiB", "answers by", "users who moved", "failed"]
    rows = []
    for label in table.contenders:
        busy = quartiles(table.values(label, lambda run: run["busy"]).values())
        compared = table.compare(label, [base], cpu, ratio) if base != label else []
        rows.append([label, show(table.values(label, cpu).values()), show(compared, 2), show(table.values(label, throughput).values(), 0),
                     f"{busy[1]:.0%}" if busy else "", show(table.values(label, anonymous).values(), 0), share(table, label), moved(table, label),
                     sum(failures(run) for run in table.runs[label].values())])
    return markdown(head, rows)


def by_latency(table):
    head = ["", "p50, us", "p90", "p99", "p99.9", "added p50", "added p99", "CPU per request, us", "requests a second", "generator late, p99", "failed or unsent"]
    rows = []
    for label in table.contenders:
        keeps_up = table.keeps_up(label)
        at = lambda name: show(table.values(label, latency(name)).values(), 0) if keeps_up else ""
        added = lambda name: show(table.added(label, "straight", latency(name)).values(), 0) if keeps_up and label != "straight" else ""
        late = quartiles(table.values(label, lambda run: run["load"]["generator_late_p99_us"]).values())
        rows.append([label if keeps_up else f"{label} (does not keep up)", at("p50"), at("p90"), at("p99"), at("p999"), added("p50"), added("p99"), show(table.values(label, cpu).values()),
                     show(table.values(label, throughput).values(), 0), f"{late[1]:,.0f}" if late else "", sum(failures(run) for run in table.runs[label].values())])
    return markdown(head, rows)


def by_memory(table, base):
    rows = []
    for label in table.contenders:
        before, after = table.values(label, lambda run: mib(run["memory_before"])), table.values(label, pss)
        each = [(value - before[number]) * 1024 / table.connections for number, value in after.items() if number in before]
        rows.append([label, show(before.values(), 1), show(after.values(), 1), show(table.values(label, anonymous).values(), 1),
                     show(table.compare(label, [base], pss, ratio), 2), show(each, 2)])
    return markdown(["", "before, MiB", "with them, MiB", "of it in no file", f"against {base}, same rounds", "a connection, KiB"], rows)


def by_operation(table):
    rows = []
    for label in table.contenders:
        runs = table.runs[label].values()
        done = [run["done"] for run in runs if run["done"]]
        slowest = max((latency("max")(run) for run in runs if run["load"]["latency"]), default=0)
        rows.append([label, sum(one["flips"] for one in done), sum(one["swaps"] for one in done), sum(run["load"]["answers"] for run in runs),
                     sum(run["load"]["slow"] for run in runs), f"{slowest / 1e3:.1f}",
                     show(table.values(label, latency("p999")).values(), 0), show(table.values(label, cpu).values()), sum(failures(run) for run in runs)])
    return markdown(["", "flips", "plugins", "answers", "over 10 ms", "slowest, ms", "p99.9, us", "CPU per request, us", "failed"], rows)


def added_by_policies(table):
    pairs = [("switchback", "switchback native"), ("switchback split-weighted", "switchback native"), ("nginx Lua", "nginx split_clients"),
             ("nginx njs", "nginx split_clients"), ("haproxy Lua", "haproxy ACL"), ("envoy Lua", "envoy weighted_clusters"),
             ("envoy proxy-wasm", "envoy weighted_clusters")]
    rows = [[f"{one} above {other}", show(table.compare(one, [other], cpu, difference), 2, " us")] for one, other in pairs]
    return markdown(["what a program as the policy adds to a request", "same rounds"], [row for row in rows if row[1]])


def unprofiled(tables):
    """The router as it is built without knowing the load: what of the targets is the profile's."""
    rows = []
    for table in tables.values():
        label = "switchback without profile"
        if label in table.contenders:
            shown = [show(table.compare(label, [other], cpu, ratio), 2) for other in ("nginx", "haproxy", "switchback")]
            rows.append([table.title, *shown])
    return markdown(["workload", "against nginx", "against HAProxy", "against the one that is shipped"], rows) if rows else ""


def noise(tables):
    rows = []
    for table in tables.values():
        what, words = (pss, "memory") if table.name == "idle" else (cpu, "CPU per request")
        if table.pair:
            rows.append([table.title, words, show(table.compare(table.pair[0], [table.pair[1]], what, ratio), 3)])
    return markdown(["workload", "", "switchback against itself, same rounds"], rows)


def plotted(table):
    """What is drawn of a workload: the plot's name, its words, its unit and the figure."""
    if table.name == "idle":
        return [("idle", "memory", "MiB", pss)]
    if table.name in LATENCY:
        return [(f"{table.name}-{part}", f"{part} from the scheduled time", "us", latency(part)) for part in ("p50", "p99")]
    return [(table.name, "CPU per request", "us", cpu)]


def section(table, folder):
    plots = ""
    for place, words, unit, what in plotted(table):
        name = f"bench-{place}.svg"
        rows = [(label, quartiles(table.values(label, what).values())) for label in table.contenders if table.keeps_up(label)]
        if bars(folder / name, f"{table.title}: {words}", unit, rows):
            plots += f"\n![{table.title}: {words}]({name})\n"
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
    if others := table.others():
        text += f"\nWhat else ran on the machine meanwhile used {others[1]:.0%} of a processor at the median, {others[2]:.0%} at the upper quartile.\n"
    return f"## {table.title}\n\n{text}{plots}"


def about(program):
    """Which program was measured, without the folders that it lay in."""
    version = f", {program['version']}" if program["version"] else ""
    profile = f", profile {program['profile']}" if program["profile"] else ""
    dirty = ", with uncommitted changes" if program["is_dirty"] else ""
    return f"The program: `{pathlib.PurePath(program['path']).name}`, SHA-256 {program['sha256'][:12]}{version}{profile}{dirty}.\n"


def forget_plots(folder, text):
    """Removes plots of earlier reports that this one does not show."""
    for plot in folder.glob("bench-*.svg"):
        if f"]({plot.name})" not in text:
            plot.unlink()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("measured", type=pathlib.Path, nargs="+")
    options.add_argument("folder", type=pathlib.Path)
    options.add_argument("--command", default="make bench")
    options.add_argument("--instructions", type=pathlib.Path, help="what bench/instructions.py --json wrote about the same program")
    options = options.parse_args()
    try:
        write(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        fail(f"{', '.join(map(str, options.measured))}: it is not what switchback-bench writes: {type(error).__name__}: {error}")


def unfinished(tables):
    names = [f"`{table.name}` ({table.begun})" for table in tables.values() if table.begun < table.rounds]
    return f"**Not finished**: of some workloads fewer rounds were measured: {', '.join(names)}.\n" if names else ""


def write(options):
    raw = in_one(options.measured)
    instructions = instructions_of_split(options.instructions, raw.get("program"))
    tables = {one["name"]: Table(one, raw["rounds"], raw["idle_clients"]) for one in raw["workloads"]}
    options.folder.mkdir(parents=True, exist_ok=True)
    machine = raw["machine"]
    versions = [[peer, version or "", raw["arms"].get(peer, "")] for peer, version in raw["versions"].items() if peer]
    left_out = [[one["workload"], one["contender"], " ".join(one["why"].replace("|", "/").split())] for one in raw["left_out"]]
    is_kept = options.folder.resolve() == pathlib.Path(__file__).resolve().parent / "results"
    guide = "[docs/PERFORMANCE.md](../../docs/PERFORMANCE.md)" if is_kept else "docs/PERFORMANCE.md"
    parts = [
        "# What a request costs, here and elsewhere\n",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['kernel']}, commit {machine['commit']}, `{options.command}`: "
        f"every contender started {raw['rounds']} times and asked for {raw['seconds']:g} s each, after {raw['warm_up']:g} s of warm-up, {raw['connections']} connections. Load average before: "
        f"{machine['load_average']}. Congestion control of TCP: {machine.get('congestion_control', 'unknown')}. {guide} says how it is made and how to read it.\n",
        *([about(raw["program"])] if raw.get("program") else []),
        unfinished(tables),
        "Figures are medians of the rounds, with quartiles in brackets. What is compared was measured in the same round. A run in which anything failed is in no figure "
        "but the number of what failed.\n",
        "## Targets\n\n" + markdown(["", "target", "measured", ""], targets(tables, instructions)) + disturbed(tables),
        "## Noise\n\nThe same program with the same config, twice in each round. A difference that is not larger than this says nothing.\n\n" + noise(tables),
        "## Without a profile\n\nCPU per request of what `make build` makes (no profile, no fat LTO), same rounds.\n\n" + unprofiled(tables) if unprofiled(tables) else "",
        *[section(table, options.folder) for table in tables.values()],
        "## Versions\n\n" + markdown(["peer", "version", "counts what each arm got"], versions),
    ]
    if left_out:
        parts.append("## Left out\n\n" + markdown(["workload", "peer", "why"], left_out))
    text = "\n".join(filter(None, parts))
    (options.folder / "bench.md").write_text(text)
    forget_plots(options.folder, text)


if __name__ == "__main__":
    main()
