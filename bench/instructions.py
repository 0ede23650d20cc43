#!/usr/bin/env python3
"""What a query costs in user instructions and system calls, held against what it cost before.

    bench/instructions.py ROUTER [--only WORKLOAD,...] [--kept FILE] [--update] [--json]

ROUTER is the program that is measured, as `make build` makes it; that of `make dist` is held against --kept bench/instructions-dist.json (`make instructions-dist`). It is started and warmed up, its counters are set back, and it is asked again: starting up
counts for nothing. Instructions are those of the worker's thread under callgrind. They repeat to within half a percent (0.6 % where queries share connections)
whatever else the machine does, so that a query that costs 3 % more is seen, and the functions that grew are named. System calls are the difference of
two runs of different length.

What is kept is bench/instructions.json, or FILE: for each workload its instructions, its system calls, and the functions that take most of them. --update writes
it anew, which is a change to be reviewed like any other.

Exit 1 when a workload costs over 3 % more instructions, or 0.15 system calls more (those that wait are not held: how many queries come at once decides of them), than the kept figures, or
when there are no kept figures for a workload, or kept ones for none; 69 when a tool is missing.
On another kind of machine (another C library, a processor with other vectors) its functions have other instructions: there 10 % are allowed, and it says so.
Needs: valgrind, strace, h2load, openssl (apt-get install valgrind strace nghttp2-client openssl), and switchback-bench beside ROUTER, or in the
folder `release` beside its own.
"""

import argparse
import collections
import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

KEPT = pathlib.Path(__file__).parent / "instructions.json"
ALLOWED = 1.03
ALLOWED_ELSEWHERE = 1.10
ALLOWED_CALLS = 0.15
# How often these are called is a matter of how many queries come at once.
WAITING = {"epoll_wait", "futex"}
FEW, MANY = 1_000, 5_000
# In what is counted of a worker's thread, and of no other.
WORKER = re.compile(r"switchback::serve::(http[12]::server|worker::run|connection|forward|attempt)")
# Of a kept list; a function that is not in it took less than the last one.
FUNCTIONS = 40
HEADERS = [
    "x-user-id: user42",
    "user-agent: Mozilla/5.0 (X11; Linux x86_64)",
    "accept: */*",
    "accept-encoding: gzip, deflate",
    "cookie: sid=abcdef0123456789; theme=dark",
]
CONFIG = """
[listen]
traffic = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = {workers}
{tls}
[state]
data_dir = "{work}/data"
# Valgrind is no policy's fault.
[policies]
deadline = "1s"
configure_deadline = "5s"
decision_budget = "20ms"
[[route]]
name = "search"
match = {{ path_prefix = "/" }}
unit = ["header:x-user-id", "cookie:sid", "client-address"]
initial = {{ live = "blue", canary_percent = "{percent}" }}
{policy}
[route.pools.blue]
endpoints = ["http://{blue}"]
protocol = "{protocol}"
[route.pools.canary]
endpoints = ["http://{canary}"]
protocol = "{protocol}"
{routes}
"""
TLS = """traffic_tls = "127.0.0.1:0"
[[tls.certificate]]
cert = "{work}/cert.pem"
key = "{work}/key.pem"
"""
RULES = """split_policy = "split-rules"
[[route.split_config.rules]]
name = "beta"
when = [{ field = "header:x-beta", equals = "1" }]
pool = "canary"
"""

# `policy` are keys of the route, `routes` more routes; `path` is asked for; options of h2load stand in `load`; `protocol` is what the backends speak.
Workload = collections.namedtuple(
    "Workload", "says percent policy load routes workers path is_tls protocol", defaults=["", 1, "/search?q=hello", False, "http1"]
)
WORKLOADS = {
    "get": Workload("GET, 1 KiB back, everybody on live", 0, "", ["--h1"]),
    "split": Workload("the same, a tenth of the users on the candidate", 10, "", ["--h1"]),
    "rules": Workload("the same, by a policy that looks at a field", 10, RULES, ["--h1"]),
    "post": Workload("POST of 4 KiB", 10, "", ["--h1", "-d", "{body}"]),
    "post16": Workload("POST of 16 KiB", 10, "", ["--h1", "-d", "{body16}"]),
    "h2": Workload("HTTP/2 from the client", 10, "", ["-m", "8"]),
    "tls": Workload("TLS 1.3 from the client", 10, "", ["--h1", "--tls13-ciphers=TLS_AES_128_GCM_SHA256"], is_tls=True),
    # Many at once, so that they share connections.
    "h2-upstream": Workload("HTTP/2 to the backends", 10, "", ["--h1", "-c", "32"], protocol="h2"),
}


def machine():
    """What else decides how many instructions a function of the C library has."""
    said = pathlib.Path("/proc/cpuinfo").read_text()
    has = {flag for line in said.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    vectors = sorted(has & {"avx2", "avx512vl", "erms", "asimd", "sve"})
    return " ".join([platform.machine(), *platform.libc_ver(), *vectors])


def fail(code, text):
    print(f"bench/{pathlib.Path(sys.argv[0]).name}: {text}", file=sys.stderr)
    sys.exit(code)


def need(tools):
    """Ends where one of these is missing."""
    packages = "apt-get install valgrind strace nghttp2-client curl openssl"
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        fail(69, f"missing: {', '.join(missing)}: {packages}")


def program(path):
    """The router that is measured, as a path that holds everywhere."""
    if not os.access(path, os.X_OK) or not os.path.isfile(path):
        fail(69, f"{path} is no program: `make build` makes target/release/switchback, and `make dist` target/dist/switchback")
    return pathlib.Path(path).resolve()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Backends:
    """One for each pool and protocol, in one process that ends with its standard input."""

    def __init__(self, router):
        beside = [folder / "switchback-bench" for folder in (router.parent, router.parent.parent / "release")]
        bench = next((path for path in beside if path.exists()), None)
        if not bench:
            fail(69, f"switchback-bench is in none of {', '.join(map(str, beside))}: cargo build --release -p switchback-bench")
        over_h2 = {name: f"127.0.0.1:{free_port()}" for name in ("blue", "canary")}
        more = [f"--http2={name}={address}" for name, address in over_h2.items()]
        self.process = subprocess.Popen(
            [bench, "upstream", "blue=127.0.0.1:0", "canary=127.0.0.1:0", *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.at = {"http1": dict(self.process.stdout.readline().strip().split("=", 1) for _ in range(2)), "h2": over_h2}

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Bench:
    def __init__(self, router, work, backends):
        self.router, self.work, self.backends = router, work, backends
        self.body, self.body16 = work / "body", work / "body16"
        self.body.write_bytes(b"x" * 4096)
        self.body16.write_bytes(b"x" * 16384)

    def make_certificate(self):
        """As the benchmark's: for one name, with a key on P-256."""
        cert, key = self.work / "cert.pem", self.work / "key.pem"
        if not cert.exists():
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            subject = ["-subj", "/CN=search.example.com", "-addext", "subjectAltName=DNS:search.example.com"]
            subprocess.run(["openssl", "req", "-x509", *curve, *subject, "-keyout", key, "-out", cert], capture_output=True, check=True)

    def run(self, workload, under, phases, is_warm=True):
        """Runs the router under a command, to its end. Of each phase, the number of queries, and what is done after them with its process."""
        config = self.work / "switchback.toml"
        at = self.backends.at[workload.protocol]
        if workload.is_tls:
            self.make_certificate()
        tls = TLS.format(work=self.work) if workload.is_tls else ""
        filled = {"percent": workload.percent, "policy": workload.policy, "workers": workload.workers, "routes": workload.routes.format(**at)}
        config.write_text(CONFIG.format(work=self.work, **filled, tls=tls, protocol=workload.protocol, blue=at["blue"], canary=at["canary"]))
        log = (self.work / "log").open("w")
        wrapped = subprocess.Popen([*under, self.router, "serve", "--config", config], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = wrapped.stdout.readline()
            found = re.search(r"traffic ([\d.:]+), admin ([\d.:]+)(?:, tls ([\d.:]+))?", line)
            if not found:
                fail(1, f"the router did not start: {line}{(self.work / 'log').read_text()[-2000:]}")
            self.wait_until_ready(found[2], "split-rules" if workload.policy else "split-weighted")
            for queries, then in phases:
                self.load(workload, queries, f"https://{found[3]}" if workload.is_tls else f"http://{found[1]}")
                if then:
                    then(wrapped.pid)
            if is_warm:
                self.hold_policy(found[2])
        finally:
            self.end(wrapped)

    def end(self, wrapped):
        """strace passes no signal on: its child is told by itself."""
        children = pathlib.Path(f"/proc/{wrapped.pid}/task/{wrapped.pid}/children").read_text().split()
        for process in map(int, children or [wrapped.pid]):
            subprocess.run(["kill", "-TERM", str(process)], check=False)
        wrapped.wait(timeout=60)

    def wait_until_ready(self, admin, policy):
        """Until then another policy decides, and costs something else."""
        wanted = f'switchback_policy_info{{route="search",kind="split",name="{policy}"'
        for _ in range(3_000):
            ready = subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://{admin}/readyz"], check=False).returncode == 0
            if ready and wanted in self.metrics(admin):
                return
            time.sleep(0.1)
        fail(1, f"the router is not ready with {policy} after five minutes")

    def metrics(self, admin):
        return subprocess.run(["curl", "-sf", f"http://{admin}/metrics"], capture_output=True, text=True, check=True).stdout

    def hold_policy(self, admin):
        """Where the policy is not there yet, the native one decides, and costs less."""
        native = [line for line in self.metrics(admin).splitlines() if line.startswith("switchback_decisions_total") and 'reason="native"' in line]
        if any(float(line.split()[-1]) > 0 for line in native) or not native:
            fail(1, f"the policy did not decide: {native}")

    def load(self, workload, queries, traffic):
        options = [option.format(body=self.body, body16=self.body16) for option in workload.load]
        headers = [part for header in HEADERS for part in ("-H", header)]
        if "-c" not in options:
            options += ["-c", "1" if "-m" in options else "8"]
        command = ["h2load", "-n", str(queries), "-t", "1", *options, *headers, f"{traffic}{workload.path}"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if f" {queries} succeeded, 0 failed" not in told.stdout:
            fail(1, f"not all queries were answered: {told.stdout}{told.stderr}")
        if workload.is_tls and "TLS Protocol: TLSv1.3" not in told.stdout:
            fail(1, f"it was not TLS 1.3: {told.stdout}")

    def functions(self, workload, phases, is_warm=True):
        """Instructions of the worker's thread until they were dumped: all, and by function."""
        for old in self.work.glob("callgrind.*"):
            old.unlink()
        out = f"--callgrind-out-file={self.work}/callgrind.out"
        under = ["valgrind", "--tool=callgrind", "--separate-threads=yes", out, f"--log-file={self.work}/valgrind.log"]
        self.run(workload, under, phases, is_warm)
        costs, total = collections.Counter(), 0
        for file in self.work.glob("callgrind.out.1-*"):
            if not WORKER.search(file.read_text(errors="replace")):
                continue
            shown = subprocess.run(["callgrind_annotate", "--threshold=100", "--show-percs=no", file], capture_output=True, text=True, check=True)
            whole = int(re.search(r"([\d,]+)\s+PROGRAM TOTALS", shown.stdout)[1].replace(",", ""))
            total += whole
            for line in shown.stdout.splitlines():
                found = re.match(r"\s*([\d,]+)\s+\S*?:(.+?)(?: \[.*)?$", line)
                # Those that run from the beginning to the end are told to have taken everything.
                if found and (cost := int(found[1].replace(",", ""))) < whole:
                    # What was compiled from a policy has an address, which is another one each time.
                    costs["a policy, compiled" if found[2].startswith("0x") else found[2]] += cost
        return total, costs

    def control(self, what):
        """Tells callgrind to set its counters back (--zero), or to write them (--dump)."""

        def tell(process):
            told = subprocess.run(["callgrind_control", what, str(process)], capture_output=True, text=True, check=False)
            if told.returncode != 0 or "error" in told.stdout.lower():
                fail(1, f"callgrind_control {what}: {told.stdout}{told.stderr}")

        return tell

    def calls(self, workload, queries):
        """System calls: all, and without those that wait."""
        out = self.work / "strace"
        self.run(workload, ["strace", "-f", "-c", "-o", out], [(queries, None)])
        counts = collections.Counter()
        for line in out.read_text().splitlines():
            if found := re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line):
                counts[found[2]] += int(found[1])
        del counts["total"]
        return sum(counts.values()), sum(count for name, count in counts.items() if name not in WAITING)

    def warm_up(self, workload):
        """The first start compiles the policy, which the others then find in the cache: once for each kind of machine, and valgrind is one."""
        self.run(workload, ["valgrind", "--tool=none", f"--log-file={self.work}/valgrind.log"], [(FEW, None)], is_warm=False)

    def measure(self, name, workload):
        print(f"counting: {name}, {workload.says}", file=sys.stderr)
        total, counted = self.functions(workload, [(FEW, self.control("--zero")), (MANY, self.control("--dump"))])
        costs = {function: cost / MANY for function, cost in counted.items()}
        most = sorted(costs.items(), key=lambda item: -item[1])[:FUNCTIONS]
        if total == 0:
            fail(1, "callgrind saw no worker")
        calls, done = [(many - few) / (MANY - FEW) for many, few in zip(self.calls(workload, MANY), self.calls(workload, FEW))]
        return {
            "says": workload.says,
            "machine": machine(),
            "instructions": round(total / MANY),
            "system_calls": round(calls, 2),
            "without_waiting": round(done, 2),
            "functions": {function: round(cost) for function, cost in most},
        }


def digest(router):
    """The program's SHA-256, in hexadecimal digits."""
    return hashlib.sha256(router.read_bytes()).hexdigest()


def named(router):
    """When and of which program something was counted, in words: its digest is the one that the benchmark's report has too."""
    said = subprocess.run(["git", "-C", pathlib.Path(__file__).parent, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"{datetime.date.today()}, commit {said.stdout.strip() or 'unknown'}, program SHA-256 {digest(router)[:12]}"


def judged(name, now, before):
    """What is wrong with a workload, in lines; none when nothing is."""
    wrong = []
    is_elsewhere = now["machine"] != before["machine"]
    if is_elsewhere:
        print(f"{name}: kept on {before['machine']}, and this is {now['machine']}: 10 % more are allowed", file=sys.stderr)
    if now["instructions"] > before["instructions"] * (ALLOWED_ELSEWHERE if is_elsewhere else ALLOWED):
        more = 100 * (now["instructions"] / before["instructions"] - 1)
        wrong.append(f"{name}: {now['instructions']:,} instructions a query, {more:.1f} % more than the kept {before['instructions']:,}. What grew:")
        least = min(before["functions"].values(), default=0)
        grown = {function: cost - before["functions"].get(function, least) for function, cost in now["functions"].items()}
        named = [(function, more) for function, more in sorted(grown.items(), key=lambda item: -item[1])[:10] if more >= 10]
        wrong += [f"    {more:+6d}  {function}" for function, more in named]
        others = now["instructions"] - sum(now["functions"].values()) - (before["instructions"] - sum(before["functions"].values()))
        wrong.append(f"    {others:+6d}  all functions that are not among the {len(now['functions'])} that are kept")
    if now["instructions"] * ALLOWED < before["instructions"]:
        less = 100 * (1 - now["instructions"] / before["instructions"])
        print(f"{name}: {less:.1f} % fewer instructions than are kept: keep them (--update --only {name}), or they can be lost unseen", file=sys.stderr)
    if now["without_waiting"] > before["without_waiting"] + ALLOWED_CALLS:
        wrong.append(f"{name}: {now['without_waiting']} system calls a query without those that wait; kept are {before['without_waiting']}")
    return wrong


def unkept(names, kept, is_whole, file=KEPT):
    """Workloads that are held against nothing, and kept ones that nobody measures any more, in lines."""
    update = f"bench/instructions.py ROUTER{'' if file == KEPT else f' --kept {file}'} --update"
    found = [f"{name}: no figure is kept: {update} --only {name}" for name in names if name not in kept]
    return found + [f"{name}: a figure is kept, and there is no such workload: {update}" for name in kept if is_whole and name not in WORKLOADS]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("router", metavar="ROUTER")
    arguments.add_argument("--only", default=",".join(WORKLOADS), metavar="WORKLOAD,...")
    arguments.add_argument("--kept", type=pathlib.Path, default=KEPT, metavar="FILE", help="the figures that it is held against")
    arguments.add_argument("--update", action="store_true", help="keep the new figures")
    arguments.add_argument("--json", action="store_true", help="write all that was counted, for machines")
    asked = arguments.parse_args()
    names = asked.only.split(",")
    is_whole = set(names) == set(WORKLOADS)
    if unknown := [name for name in names if name not in WORKLOADS]:
        fail(64, f"no workload {', '.join(unknown)}: there are {', '.join(WORKLOADS)}")
    need(("valgrind", "strace", "h2load", "curl", "openssl"))
    kept = json.loads(asked.kept.read_text()) if asked.kept.exists() else {}
    # Before minutes are spent.
    if not asked.update and (missing := unkept(names, kept, is_whole, asked.kept)):
        fail(1, "\n".join(missing))
    router = program(asked.router)
    backends = Backends(router)
    try:
        with tempfile.TemporaryDirectory() as work:
            bench = Bench(router, pathlib.Path(work), backends)
            print("warming up", file=sys.stderr)
            for name in {"split", "rules"} & set(names) or {"split"}:
                bench.warm_up(WORKLOADS[name])
            now = {name: bench.measure(name, WORKLOADS[name]) for name in names}
    finally:
        backends.stop()
    if asked.update:
        everything = now if is_whole else kept | now
        asked.kept.write_text(json.dumps(everything, indent=1) + "\n")
    wrong = [] if asked.update else [line for name in names for line in judged(name, now[name], kept[name])]
    if asked.json:
        print(json.dumps({"program": digest(router), "workloads": now}, indent=1))
    else:
        print(f"{asked.router}, held against {asked.kept.name}:")
        for name in names:
            before = f" (kept: {kept[name]['instructions']:,} and {kept[name]['without_waiting']})" if not asked.update else ""
            print(
                f"{name:11} {now[name]['instructions']:7,} instructions, {now[name]['system_calls']:5.2f} system calls a query, "
                f"{now[name]['without_waiting']:5.2f} without those that wait{before}"
            )
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        fail(1, f"a query costs more than is kept in {asked.kept.name}. If that is meant, keep the new figures: the same with --update")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
