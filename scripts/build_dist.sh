#!/usr/bin/env bash
# Builds the router as it is shipped: fat LTO, and laid out by a profile of what it does under load (PGO).
#
#   scripts/build_dist.sh [--as-is]            (make dist is this)
#
# 1. a program that counts what it runs is built; 2. it is put under the benchmark's own load, every kind of it that the query path has;
# 3. the program is built with what was counted. Two builds with fat LTO: half an hour on two cores. The result is $CARGO_TARGET_DIR/dist/switchback.
# With --as-is, the profile of last time is used where there is one. Exit 64 where the command line makes no sense, 69 where a tool is missing. Needs: rustup's component llvm-tools, which it installs, and h2load.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
folder=$target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
# For this target alone: not for build scripts, and not for policies.
flags=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUSTFLAGS
# Every workload of the benchmark in which something of the query path runs that runs in no other.
workloads=split,policy,post4,post16,http2,h2-upstream,tls

say() { echo "build_dist: $*" >&2; }

case "$*" in
  "" | --as-is) ;;
  --help | -h) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' scripts/build_dist.sh; exit 0 ;;
  *) say "it takes --as-is alone, and not: $*"; exit 64 ;;
esac

profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if [ ! -x "$profdata" ]; then
  say "installing rustup's component llvm-tools"
  rustup component add llvm-tools
fi
command -v h2load >/dev/null || { say "h2load is missing: apt-get install nghttp2-client"; exit 69; }
mkdir -p "$folder"

if [ "${1:-}" != --as-is ] || [ ! -s "$folder/switchback.profdata" ]; then
  say "1 of 3: building the program that counts (fat LTO: a quarter of an hour)"
  rm -rf "$folder/raw"
  env "$flags=-Cprofile-generate=$folder/raw" CARGO_TARGET_DIR="$folder/build" \
    cargo build --profile dist --locked -p switchback --bin switchback --target "$host"
  cargo build --release --locked -p switchback-bench

  say "2 of 3: putting it under load"
  rm -rf "$folder/raw"
  "$target/release/switchback-bench" rounds --switchback "$folder/build/$host/dist/switchback" --tools "$folder/none" --work "$folder/work" \
    --out "$folder/load.json" --against switchback --only "$workloads" --rounds 1 --seconds 3
  ls "$folder"/raw/*.profraw >/dev/null 2>&1 || { say "it counted nothing: $folder/raw is empty"; exit 70; }
  "$profdata" merge -o "$folder/switchback.profdata" "$folder"/raw/*.profraw
fi

say "3 of 3: building with what was counted (fat LTO: a quarter of an hour)"
env "$flags=-Cprofile-use=$folder/switchback.profdata" CARGO_TARGET_DIR="$folder/build" \
  cargo build --profile dist --locked -p switchback --bin switchback --target "$host"
mkdir -p "$target/dist"
# The old one may be running.
cp "$folder/build/$host/dist/switchback" "$target/dist/switchback.new"
mv "$target/dist/switchback.new" "$target/dist/switchback"
say "done: $target/dist/switchback"
