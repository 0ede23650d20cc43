#!/usr/bin/env python3
"""Draws where the processor's time of a query goes: a flame graph of the router under saturation, with the kernel's part.

    bench/flame.py ROUTER SVG [--queries 400000] [--tools FOLDER]

`make flame` draws the one of `make build`: in the one that is shipped nearly all of a query is one function. The router has one worker and the sticky split of 90/10; h2load asks on 8 connections. Stacks are taken 499 times a second by perf, with the program's own unwind information,
so that ROUTER needs debug information, as every profile of Cargo.toml keeps it.

Needs: perf, h2load (apt-get install linux-perf nghttp2-client), and inferno's programs in FOLDER/bin or on the PATH (`make flame` puts them there).
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from instructions import WORKLOADS, Backends, Bench, fail, named, program


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("router", metavar="ROUTER")
    arguments.add_argument("svg", metavar="SVG", type=pathlib.Path)
    arguments.add_argument("--queries", type=int, default=400_000)
    arguments.add_argument("--tools", type=pathlib.Path)
    asked = arguments.parse_args()
    path = os.pathsep.join([*([str(asked.tools / "bin")] if asked.tools else []), os.environ["PATH"]])
    tools = {tool: shutil.which(tool, path=path) for tool in ("perf", "h2load", "curl", "inferno-collapse-perf", "inferno-flamegraph")}
    if missing := [tool for tool, found in tools.items() if not found]:
        fail(69, f"missing: {', '.join(missing)}: apt-get install linux-perf nghttp2-client curl; make flame installs inferno")
    router = program(asked.router)
    if not asked.svg.parent.is_dir():
        fail(64, f"{asked.svg}: there is no folder {asked.svg.parent}")
    backends = Backends(router)
    try:
        with tempfile.TemporaryDirectory() as work:
            recorded = pathlib.Path(work) / "perf.data"
            under = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,16384", "-o", recorded]
            bench = Bench(router, pathlib.Path(work), backends)
            bench.run(WORKLOADS["split"], under, [(asked.queries, None)])
            # Whom a worker runs, and nobody else: what starts and ends the program is no query.
            script = subprocess.Popen(["perf", "script", "-i", recorded, "--no-inline"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            folded = subprocess.run([tools["inferno-collapse-perf"]], stdin=script.stdout, capture_output=True, check=True).stdout
            script.wait()
    finally:
        backends.stop()
    stacks = [line for line in folded.decode().splitlines() if line.startswith("worker-")]
    if not stacks:
        names = sorted({line.split(";", 1)[0] for line in folded.decode().splitlines()})
        fail(1, f"no stack is of a worker's thread: {', '.join(names)}")
    title = f"A query's processor time: the split of 90/10 under saturation, by one worker ({named(router)})"
    drawn = subprocess.run(
        [tools["inferno-flamegraph"], "--title", title, "--width", "1400", "--minwidth", "0.1", "--countname", "ns"], input="\n".join(stacks).encode(), capture_output=True, check=True
    )
    # Without the comments of its script, which are about the tool.
    asked.svg.write_bytes(re.sub(rb"(?m)^\s*//.*\n", b"", drawn.stdout))


if __name__ == "__main__":
    main()
