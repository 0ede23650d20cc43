#!/usr/bin/env bash
# The benchmark: builds, installs the peers, measures, and writes the report. `make bench` is this.
#
#   bench/run.sh [--quick] [--only get,split,...] [--against switchback,nginx,...] [--rounds N] [--seconds S] [--as-is] ...
#
# The report of a whole run goes to bench/results (bench.md and its plots), that of one that is quick, of a part (--only, --against), of fewer than
# 20 rounds or of less than a second, or under another load (any other option), to $CARGO_TARGET_DIR/bench/report; what was measured is in
# $CARGO_TARGET_DIR/bench/bench.json. --quick is 3 rounds of 1 s; where --rounds,
# --seconds or --warm-up is said too, that counts. A whole run counts the instructions of a query too (bench/instructions.py). --as-is builds and installs nothing. SWITCHBACK_BIN names another router than the one that is
# built here (scripts/build_dist.sh: fat LTO and a profile).
# All other options are those of `switchback-bench rounds --help` (--switchback, --unprofiled, --tools, --work and --out are set here). Nothing else should run
# on the machine meanwhile. What an interrupted run measured is in bench.json; bench/report.py makes a report of it, which says so.
#
# Exit codes: 64 the command line makes no sense; 75 another run is under way; 69 the router or the benchmark's program is not there; 70 nobody answered in some workload, or the
# router never did (there is no report then, and what was measured is in bench.json). A report is written with 0 alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/bench
program=$target/release/switchback-bench
report=bench/results
part=$folder/report

help() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' bench/run.sh
  if [ -x "$program" ]; then
    echo
    "$program" rounds --help
  fi
}

# Fewer rounds than 20, or no number, are not for a report that is kept.
few_rounds() {
  ! [[ $1 =~ ^0*([2-9][0-9]|[1-9][0-9]{2,})$ ]]
}

# Less than a second, or no number.
short() {
  ! [[ $1 =~ ^0*[1-9][0-9]*(\.[0-9]*)?$ ]]
}

as_is=
before=
options=()
for option in "$@"; do
  case $option in
    --help | -h) help; exit 0 ;;
    --rounds=*) if few_rounds "${option#*=}"; then report=$part; fi ;;
    --seconds=*) if short "${option#*=}"; then report=$part; fi ;;
    --rounds | --seconds | --warm-up | --warm-up=* | --as-is) ;;
    --*) report=$part ;;
  esac
  if [ "$before" = --rounds ] && few_rounds "$option"; then report=$part; fi
  if [ "$before" = --seconds ] && short "$option"; then report=$part; fi
  if [ "$option" = --as-is ]; then as_is=yes; else options+=("$option"); fi
  before=$option
done
router=${SWITCHBACK_BIN:-$target/dist/switchback}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock -n 9 || { echo "bench: another run is under way in $folder: two on one machine measure each other" >&2; exit 75; }
rounds=("$program" rounds --switchback "$router" --tools "$folder/tools" --work "$folder/work" --out "$folder/bench.json")

if [ -z "$as_is" ]; then
  # A word that is misspelt is found before everything is built.
  cargo build --release --locked -p switchback-bench
  "${rounds[@]}" --check "${options[@]}"
  bench/install_peers.sh "$folder/tools"
  # Beside the one that is shipped, which was laid out by a profile of this very load.
  cargo build --release --locked --workspace
  if [ -z "${SWITCHBACK_BIN:-}" ]; then
    scripts/build_dist.sh --as-is
  fi
fi
[ -x "$program" ] || { echo "bench: $program is not there: --as-is builds nothing" >&2; exit 69; }
command="${SWITCHBACK_BIN:+SWITCHBACK_BIN=${SWITCHBACK_BIN##*/} }make bench${*:+ ARGS=\"$*\"}"
unprofiled=()
if [ -x "$target/release/switchback" ]; then unprofiled=(--unprofiled "$target/release/switchback"); fi
partly() {
  echo "bench: it did not come to its end. Of what was measured until then a report is made by: bench/report.py $folder/bench.json $part" >&2
  exit "$1"
}
trap 'partly 130' INT
trap 'partly 143' TERM
"${rounds[@]}" "${unprofiled[@]}" "${options[@]}" || { code=$?; [ $code -ne 64 ] || exit 64; partly $code; }
trap - INT TERM
counted=()
if [ "$report" != "$part" ]; then
  # Of the same program. One that costs more than what is kept is still reported; where nothing could be counted, the report goes without.
  bench/instructions.py "$router" --kept bench/instructions-dist.json --json >"$folder/instructions.json" || true
  if [ -s "$folder/instructions.json" ]; then
    counted=(--instructions "$folder/instructions.json")
  else
    echo "bench: instructions could not be counted: the report has no row of them" >&2
  fi
fi
python3 bench/report.py "$folder/bench.json" "$report" --command "$command" "${counted[@]}"
echo "bench: $report/bench.md" >&2
