#!/usr/bin/env python3
"""How the cost of a query grows: user instructions and system calls of it with more routes, rules, connections, workers, fields, and bytes of a body.

    bench/growth.py ROUTER [--only AXIS,...] [--out FILE]

ROUTER is the program that is measured; `make growth` gives it the one that is shipped. Each figure is counted as bench/instructions.py counts, under callgrind, and
depends on nothing else that the machine does: it is no time, and what the kernel does is in none of it but the number of system calls.

Needs: valgrind, strace, h2load, curl (apt-get install valgrind strace nghttp2-client curl), and switchback-bench.
"""

import argparse
import pathlib
import signal
import sys
import tempfile

from instructions import Backends, Bench, WORKLOADS, fail, machine, named, need, program

SPLIT = WORKLOADS["split"]
# What stands in two braces more is filled in when the config is written. Health checks of 2,000 endpoints each second would be what is counted.
ROUTE = """
[[route]]
name = "r{number}"
match = {{{{ path_prefix = "/r{number}" }}}}
unit = ["header:x-user-id"]
[route.pools.blue]
endpoints = ["http://{{blue}}"]
health = {{{{ path = "/health", interval = "60s" }}}}
[route.pools.canary]
endpoints = ["http://{{canary}}"]
health = {{{{ path = "/health", interval = "60s" }}}}
"""
RULE = """[[route.split_config.rules]]
name = "rule{number}"
when = [{{ field = "header:x-beta", equals = "{number}" }}]
pool = "canary"
"""


def with_routes(number):
    """The last of so many is asked."""
    more = "".join(ROUTE.format(number=one) for one in range(1, number))
    return SPLIT._replace(routes=more, path=f"/r{number - 1}/search?q=hello" if number > 1 else SPLIT.path)


def with_rules(number):
    """None of them holds, so that all of them are looked at; none at all is the weighted split."""
    rules = 'split_policy = "split-rules"\n' + "".join(RULE.format(number=one) for one in range(number))
    return SPLIT._replace(policy=rules if number else "")


def with_connections(number):
    return SPLIT._replace(load=["--h1", "-c", str(number)])


def with_workers(number):
    return SPLIT._replace(workers=number, load=["--h1", "-c", "32"])


def with_fields(number):
    """Beside those that the benchmark's queries have: each of 40 bytes."""
    return SPLIT._replace(load=["--h1", *(part for one in range(number) for part in ("-H", f"x-field-{one:02}: {'v' * 26}"))])


def with_body(kib):
    return SPLIT._replace(load=["--h1", "-d", "{body}"], path=f"/size/{1024 * kib}")


# Of each: what it is, the points, how a query with so many of it is asked, and what is said below.
AXES = {
    "routes": ("routes in the config", [1, 10, 100, 1_000], with_routes, "The last of them is asked."),
    "rules": ("rules of `split-rules`", [0, 1, 8, 64], with_rules, "On one field, and none of them holds; 64 are the most there can be. With none the policy is `split-weighted`."),
    "connections": ("connections of clients, all of them at work", [1, 8, 64, 512], with_connections, "What comes at once is read and answered in one turn, so that fewer calls wait."),
    "workers": ("workers, with 32 connections", [1, 2, 4], with_workers, "Of all workers together. A worker shares nothing with another one that a query would touch."),
    "fields": ("more fields in a query's head, of 40 bytes each", [0, 8, 32], with_fields, ""),
    "body": ("KiB of a POST's body, each way", [1, 4, 16, 64], with_body, "A piece of up to 16 KiB goes with its head in one write, and is copied for that. The C library copies one of 16 KiB by `rep movsb`, which counts an instruction for each byte and takes far less than they would: that row is not what it seems."),
}


def counted(bench, axis):
    title, points, with_number, said = AXES[axis]
    rows, first = [], None
    for point in points:
        if axis == "body":
            bench.body.write_bytes(b"x" * 1024 * point)
        workload = with_number(point)
        bench.warm_up(workload)
        found = bench.measure(f"{axis} {point}", workload)
        first = first or found["instructions"]
        print(f"counted: {axis} {point}: {found['instructions']:,} instructions, {found['system_calls']} system calls", file=sys.stderr)
        more = f"{100 * (found['instructions'] / first - 1):+.1f} %"
        rows.append(f"| {point:,} | {found['instructions']:,} | {more} | {found['system_calls']:.2f} | {found['without_waiting']:.2f} |")
    head = f"| {title} | user instructions a query | | system calls | without those that wait |\n|---|---|---|---|---|\n"
    return f"## {axis.capitalize()}\n\n" + (f"{said}\n\n" if said else "") + head + "\n".join(rows) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("router", metavar="ROUTER")
    arguments.add_argument("--only", default=",".join(AXES), metavar="AXIS,...")
    arguments.add_argument("--out", type=pathlib.Path, help="where the report is written; without it, to standard output alone")
    asked = arguments.parse_args()
    axes = asked.only.split(",")
    if unknown := [axis for axis in axes if axis not in AXES]:
        fail(64, f"no axis {', '.join(unknown)}: there are {', '.join(AXES)}")
    need(("valgrind", "strace", "h2load", "curl"))
    router = program(asked.router)
    if asked.out and not asked.out.parent.is_dir():
        fail(64, f"--out {asked.out}: there is no folder {asked.out.parent}")
    backends = Backends(router)
    try:
        with tempfile.TemporaryDirectory() as work:
            measures = Bench(router, pathlib.Path(work), backends)
            parts = [counted(measures, axis) for axis in axes]
    finally:
        backends.stop()
    report = f"# How the cost of a query grows\n\n`bench/growth.py`, {named(router)}, {machine()}. The sticky split of 90/10 over HTTP/1.1, 1 KiB back.\n\n" + "\n".join(parts)
    print(report)
    if asked.out:
        asked.out.write_text(report)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
