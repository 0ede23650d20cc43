#!/usr/bin/env bash
# Runs every fuzz target so many times, and keeps the figures in tests/fuzz/report.md.
#
#   tests/fuzz/run.sh [EXECUTIONS]      a million unless it says otherwise
#
# Exit 1 when a target fails: the last lines have the smallest input that was found, to become a named test and a file of the corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

executions=${1:-1000000}
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT

echo "fuzz: $executions executions of each target: some minutes" >&2
SWITCHBACK_FUZZ=$executions SWITCHBACK_FUZZ_FIGURES=$figures cargo test --release --locked --workspace --lib -- fuzz:: fuzz_backend_response experiment_record --nocapture

{
  echo "# Fuzzing: the last run that was kept"
  echo
  echo "$(date -u +%Y-%m-%d), \`make fuzz\`, $(nproc) cores, $(uname -sm), $(rustc --version)."
  echo
  echo "| target | executions | seconds | ways | files in its corpus | findings |"
  echo "|---|---|---|---|---|---|"
  sort "$figures" | awk '{ printf "| `%s` | %d | %s | %d | %d | none |\n", $1, $2, $3, $4, $5 }'
  echo
  echo "\"Ways\" are the outcomes that were told apart; an input that takes a new way is mutated further ([how](src/lib.rs))."
} >tests/fuzz/report.md
echo "fuzz: written: tests/fuzz/report.md" >&2
