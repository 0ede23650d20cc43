#!/usr/bin/env bash
# The benchmark: builds, installs the peers, measures, and writes the report. `make bench` is this.
#
#   bench/run.sh [--quick] [--only get,split,...] [--against switchback,nginx,...] [--rounds N] [--seconds S] [--as-is] ...
#
# The report of a whole run goes to bench/results (bench.md and its plots), that of one that is quick or of a part to $CARGO_TARGET_DIR/bench/report;
# what was measured is in $CARGO_TARGET_DIR/bench/bench.json. --as-is builds and installs nothing. SWITCHBACK_BIN names another router than the one that is built here
# (scripts/build_dist.sh: fat LTO and a profile).
# All other options are those of `switchback-bench rounds --help`. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/bench
report=bench/results
as_is=
options=()
for option in "$@"; do
  case $option in
    --as-is) as_is=yes ;;
    --quick | --only* | --against*) report=$folder/report options+=("$option") ;;
    *) options+=("$option") ;;
  esac
done
router=${SWITCHBACK_BIN:-$target/dist/switchback}
mkdir -p "$folder" "$report"

if [ -z "$as_is" ]; then
  bench/install_peers.sh "$folder/tools"
  cargo build --release --locked -p switchback-bench
  if [ -z "${SWITCHBACK_BIN:-}" ]; then
    scripts/build_dist.sh --as-is
  fi
fi
command="make bench${*:+ ARGS=\"$*\"}"
"$target/release/switchback-bench" rounds --switchback "$router" --tools "$folder/tools" --work "$folder/work" --out "$folder/bench.json" "${options[@]}"
python3 bench/report.py "$folder/bench.json" "$report" --command "$command"
echo "bench: $report/bench.md" >&2
