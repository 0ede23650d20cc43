"""What two public scanners say of the corpus's pickle-like files.

  scan.py CORPUS_DIR [--to scan.md]

Run it in a virtual environment with requirements-scan.txt. Each file is scanned in a process of its own, with 30 s and 4 GiB; a scanner
that dies or never ends counts as an error. Neither scanner loads what it scans.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

SECONDS, BYTES = 30, 4 << 30
SCANNERS = ("picklescan", "modelscan")
KINDS = {".pkl", ".joblib", ".pt", ".npy", ".npz"}
FLAGGED = ("dangerous", "suspicious")


def picklescan(path: str) -> str:
    from picklescan.scanner import scan_file_path

    result = scan_file_path(path)
    if result.issues_count:
        return "dangerous"
    if result.scan_err:
        return "error"
    return "suspicious" if result.suspicious_count else "clean" if result.scanned_files else "skipped"


def modelscan(path: str) -> str:
    from modelscan.modelscan import ModelScan

    result = ModelScan().scan(path)
    counts = result["summary"]["total_issues_by_severity"]
    if counts["CRITICAL"] or counts["HIGH"]:
        return "dangerous"
    if counts["MEDIUM"] or counts["LOW"]:
        return "suspicious"
    if result["errors"]:
        return "error"
    return "clean" if result["summary"]["scanned"]["total_scanned"] else "skipped"


def scan(scanner: str, path: Path) -> str:
    """One word, from a child process."""

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, __file__, "--one", scanner, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False, preexec_fn=limits)
    except subprocess.TimeoutExpired:
        return "error (time)"
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip().splitlines()[-1]
    return "error (memory)" if "MemoryError" in done.stderr else f"error ({done.returncode})"


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        print(globals()[sys.argv[2]](sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS_DIR")
    parser.add_argument("--to", type=Path, default=Path("scan.md"), help="the table (default %(default)s)")
    arguments = parser.parse_args()
    models = json.loads((arguments.corpus / "corpus.json").read_text())["models"]
    rows = [row for row in models if Path(row["file"]).suffix in KINDS]
    with tempfile.TemporaryDirectory(prefix="corpus-canary-") as canary, ThreadPoolExecutor(2) as pool:
        os.environ["CORPUS_CANARY"] = canary
        for scanner in SCANNERS:
            for row, said in zip(rows, pool.map(lambda row: scan(scanner, arguments.corpus / row["file"]), rows)):
                row[scanner] = said
        ran = sorted(os.listdir(canary))
    arguments.to.write_text(table(rows, ran))
    print(f"{len(rows)} files; ran: {ran or 'nothing'}; the table is in {arguments.to}")
    return 1 if ran else 0


def table(rows: list, ran: list) -> str:
    lines = [
        "# What public scanners say of the corpus\n",
        f"Python {sys.version.split()[0]}; "
        + ", ".join(f"{scanner} {version(scanner)}" for scanner in SCANNERS)
        + ", default settings; 30 s and 4 GiB for each file.",
        f"Payloads that ran: {', '.join(ran) or 'none'}. `skipped`: the scanner does not look into such a file. `error`: it gave up, and named no danger.\n",
        "| verdict | scanner | dangerous | suspicious | clean | skipped | error |\n|---|---|---|---|---|---|---|",
    ]
    for verdict in ("bad", "good"):
        for scanner in SCANNERS:
            counts = Counter(row[scanner].split(" ")[0] for row in rows if row["verdict"] == verdict)
            lines.append(
                f"| {verdict} | {scanner} | "
                + " | ".join(str(counts[word]) for word in ("dangerous", "suspicious", "clean", "skipped", "error"))
                + " |"
            )
    missed = [
        row["file"]
        for row in rows
        if row["class"].endswith("-code") and all(row[scanner].split(" ")[0] not in FLAGGED for scanner in SCANNERS)
    ]
    lines.append(f"\nFiles with code in them that neither calls dangerous or suspicious: {len(missed)}.\n")
    lines.append("| file | class | verdict | picklescan | modelscan |\n|---|---|---|---|---|")
    lines += [f"| {row['file']} | {row['class']} | {row['verdict']} | {row['picklescan']} | {row['modelscan']} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
