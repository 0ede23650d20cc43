"""What `switchback-bench rounds` and `bench/instructions.py --json` wrote, read and looked at: nonsense ends the report in one line."""

import json
import re


def fail(why):
    raise SystemExit(f"bench/report.py: {why}")


def read(path):
    """What is in a file of measurements or counts; it ends where there is nonsense in it."""
    def refuse(what):
        fail(f"{path}: {what} is no number that can be measured")

    def look(part):
        if isinstance(part, (int, float)) and part < 0:
            refuse(part)
        named = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for name, one in named:
            if name != "others":
                look(one)

    try:
        found = json.loads(path.read_text(), parse_constant=refuse)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except ValueError as error:
        fail(f"{path}: {error}")
    if not isinstance(found, dict):
        fail(f"{path}: it is not what switchback-bench writes")
    look(found)
    return found


def in_one(paths):
    """What was measured in parts, as if it had been at once."""
    parts = [read(path) for path in paths]
    for path, part in zip(paths, parts):
        if not 1 <= part["rounds"]:
            fail(f"{path}: no rounds")
        for one in part["workloads"]:
            if not re.fullmatch(r"[a-z0-9-]+", one["name"]):
                fail(f"{path}: no workload is called {one['name']!r}")
    whole = parts[0]
    for path, part in zip(paths, parts):
        for what, mine, first in [(key, part["machine"][key], whole["machine"][key]) for key in ("processor", "cores", "kernel", "commit")] + [
                (key, part[key], whole[key]) for key in ("rounds", "seconds", "warm_up", "connections", "idle_clients")] + [
                ("program's SHA-256", *((one.get("program") or {}).get("sha256") for one in (part, whole)))]:
            if mine != first:
                fail(f"{path}: {what} is {mine}, and {first} in {paths[0]}: parts of one report are of one program, one machine and alike")
    for part in parts[1:]:
        names = {one["name"] for one in part["workloads"]}
        whole["workloads"] = [one for one in whole["workloads"] if one["name"] not in names] + part["workloads"]
        whole["left_out"] = [one for one in whole["left_out"] if one["workload"] not in names] + part["left_out"]
        whole["versions"].update(part["versions"])
        whole["arms"].update(part["arms"])
    loads = [float((part["machine"]["load_average"].split() or [0])[0]) for part in parts]
    whole["machine"]["load_average"] = f"{min(loads)}" if min(loads) == max(loads) else f"{min(loads)} to {max(loads)}"
    return whole


def instructions_of_split(path, program):
    """Of the same program, which is what it says."""
    if not path:
        return None
    counted = read(path)
    mine, its = (program or {}).get("sha256"), counted.get("program")
    if mine and its != mine:
        fail(f"{path}: it is of the program {its}, and {mine} was measured")
    return counted.get("workloads", {}).get("split", {}).get("instructions")
