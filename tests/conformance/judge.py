"""Reads what a suite wrote, and says what it comes to: a line `ran passed skipped` and then each failed case on a line of its own."""

import json
import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path


def h2spec(path):
    ran = skipped = 0
    failed = []
    numbers = {}
    for suite in xml.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            package = case.get("package")
            numbers[package] = numbers.get(package, 0) + 1
            ran += 1
            skipped += case.find("skipped") is not None
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(f"{package} {numbers[package]}")
    return ran, ran - skipped - len(failed), skipped, failed


def h1spec(path):
    lines = Path(path).read_text().splitlines()
    passed = sum(line.startswith("✅") for line in lines)
    failed = [line[1:].split(":")[0].strip() for line in lines if line.startswith("❌")]
    return passed + len(failed), passed, 0, failed


def websocket(direct, through):
    """A case passes when it ends through the router as it does directly."""
    one, other = (next(iter(json.loads(Path(path, "index.json").read_text()).values())) for path in (direct, through))
    ends = lambda case: (case.get("behavior"), case.get("behaviorClose"))
    failed = [f"{name} {ends(one[name])} directly, {ends(other[name])} through" for name in one if ends(one[name]) != ends(other.get(name, {}))]
    return len(one), len(one) - len(failed), 0, failed


def slow(counts, log):
    """How many attackers were connected at most, when the last was gone, and whether all are; seconds without service."""
    rows = [line.split(",") for line in Path(counts).read_text().splitlines()[1:]]
    rows = [[int(cell) for cell in row[:5]] for row in rows if len(row) >= 5]
    end = re.search(r"Test ended on (\d+)\w\w second\s+Exit status:\s+(.*)", re.sub(r"\x1b\[[0-9;]*m", "", Path(log).read_text()))
    is_over = end is not None and end[2].startswith("No open connections left")
    away = sum(1 for row in rows if row[4] == 0)
    failed = [f"{away} s without service"] if away else []
    return max(row[3] for row in rows), int(end[1]) if is_over else 0, 0 if is_over else rows[-1][3], failed


ran, passed, skipped, failed = globals()[sys.argv[1]](*sys.argv[2:])
print(ran, passed, skipped)
for case in failed:
    print(case)
