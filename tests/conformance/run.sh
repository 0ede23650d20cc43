#!/usr/bin/env bash
# Runs the conformance suites and the slow attacks against a release build of the router, and says how many cases pass.
#
#   tests/conformance/run.sh [--h2spec] [--h1spec] [--websocket] [--slow] [--skip-missing] [--report FILE]
#
# Without a part's name, all of them. What a part needs is installed into $CARGO_TARGET_DIR/tools/conformance; h2spec and h1spec come from
# GitHub, or from where H2SPEC and H1SPEC say. With --skip-missing a part whose tools cannot be had is left out, and the last lines say so.
# Exit 1 when a case fails that tests/conformance/known.txt does not have; 69 when a tool cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TARGET=${CARGO_TARGET_DIR:-target}
TOOLS=$TARGET/tools/conformance
BINARY=${SWITCHBACK_BIN:-$TARGET/release/switchback}
HERE=tests/conformance
KNOWN=$HERE/known.txt
WORK=$(mktemp -d)
REPORT=
SKIP_MISSING=
FAILED=0
PARTS=()
STARTED=()
ROWS=()

say() { printf 'conformance: %s\n' "$*" >&2; }

stop() {
  local pid
  for pid in ${STARTED[@]+"${STARTED[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$WORK"
}
trap stop EXIT

while [ $# -gt 0 ]; do
  case $1 in
    --h2spec | --h1spec | --websocket | --slow) PARTS+=("${1#--}") ;;
    --skip-missing) SKIP_MISSING=yes ;;
    --report)
      REPORT=${2:?--report needs a file}
      shift
      ;;
    *)
      say "unknown: $1; allowed: --h2spec, --h1spec, --websocket, --slow, --skip-missing, --report FILE"
      exit 64
      ;;
  esac
  shift
done
[ ${#PARTS[@]} -gt 0 ] || PARTS=(h2spec h1spec websocket slow)
[ -x "$BINARY" ] || { say "$BINARY is not there: run make build first"; exit 69; }

# Starts a program that prints `listening PORT`, and puts the port into the variable PORT.
start_backend() {
  local log=$WORK/$1.log tries=0
  shift
  : >"$log"
  "$@" >>"$log" 2>&1 &
  STARTED+=("$!")
  until PORT=$(sed -n 's/^listening \([0-9]*\)$/\1/p' "$log") && [ -n "$PORT" ]; do
    tries=$((tries + 1))
    if ((tries > 300)); then
      say "a backend did not start:"
      cat "$log" >&2
      exit 1
    fi
    sleep 0.1
  done
}

# Starts the router in front of a backend; its addresses go into TRAFFIC, TLS and ADMIN.
start_router() {
  local name=$1 port=$2 tries=0
  mkdir -p "$WORK/$name"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout "$WORK/$name/key.pem" -out "$WORK/$name/cert.pem" 2>/dev/null
  cat >"$WORK/$name/switchback.toml" <<TOML
[listen]
traffic = "127.0.0.1:0"
traffic_tls = "127.0.0.1:0"
admin = "127.0.0.1:0"
[[tls.certificate]]
cert = "$WORK/$name/cert.pem"
key = "$WORK/$name/key.pem"
[state]
data_dir = "$WORK/$name/data"
[[route]]
name = "all"
[route.pools.blue]
endpoints = ["http://127.0.0.1:$port"]
health = { interval = "0s" }
TOML
  "$BINARY" serve --config "$WORK/$name/switchback.toml" >"$WORK/$name/out.log" 2>"$WORK/$name/router.log" &
  STARTED+=("$!")
  until grep -q '^listening' "$WORK/$name/out.log" && curl --silent --fail --output /dev/null "http://$(address admin "$name")/readyz"; do
    tries=$((tries + 1))
    if ((tries > 200)); then
      say "the router did not start:"
      tail -n 20 "$WORK/$name/router.log" >&2
      exit 1
    fi
    sleep 0.1
  done
  TRAFFIC=$(address traffic "$name")
  TLS=$(address tls "$name")
}

# The address of a listener, from the router's first line.
address() {
  sed -n "s/.*$1 \([0-9.]*:[0-9]*\).*/\1/p" "$WORK/$2/out.log" | head -n 1
}

# Prints a suite's result, compares its failures with the known ones, and keeps a row for the report.
judge() {
  local suite=$1 least=$2 result ran passed skipped failures case reason
  shift 2
  result=$(python3 $HERE/judge.py "$@")
  read -r ran passed skipped <<<"$result"
  failures=$(tail -n +2 <<<"$result")
  say "$suite: $passed of $ran passed, $skipped skipped"
  local notes=()
  while IFS= read -r case; do
    [ -n "$case" ] || continue
    reason=$(awk -F'|' -v suite="$suite" -v name="$case" '$1 == suite && $2 == name { print $3 }' $KNOWN)
    if [ -z "$reason" ]; then
      say "$suite: FAILED: $case"
      FAILED=1
      reason="**not known**"
    fi
    notes+=("\`$case\`: $reason")
  done <<<"$failures"
  while IFS='|' read -r _ case _; do
    if ! grep -qxF -- "$case" <<<"$failures"; then
      say "$suite: $case is in $KNOWN and passes"
      FAILED=1
    fi
  done < <(grep -F "$suite|" $KNOWN || true)
  if ((passed < least)); then
    say "$suite: $passed passed, at least $least are wanted"
    FAILED=1
  fi
  ROWS+=("| $suite | $ran | $passed | $skipped | ${notes[*]:-} |")
}

run_h2spec() {
  local h2spec=${H2SPEC:-$(command -v h2spec || echo "$TOOLS/h2spec")}
  start_backend backend "$TOOLS/python/bin/deno" run --quiet --allow-net $HERE/backend.ts
  start_router h2spec "$PORT"
  say "h2spec in the clear: 146 cases, some 10 s ..."
  timeout 300 "$h2spec" -h 127.0.0.1 -p "${TRAFFIC##*:}" -o 3 -j "$WORK/clear.xml" >"$WORK/h2spec.log" 2>&1 || true
  judge "h2spec in the clear" 140 h2spec "$WORK/clear.xml"
  say "h2spec over TLS ..."
  timeout 300 "$h2spec" -t -k -h 127.0.0.1 -p "${TLS##*:}" -o 3 -j "$WORK/tls.xml" >>"$WORK/h2spec.log" 2>&1 || true
  judge "h2spec over TLS" 140 h2spec "$WORK/tls.xml"
}

run_h1spec() {
  local deno=$TOOLS/python/bin/deno
  start_backend backend "$deno" run --quiet --allow-net $HERE/backend.ts
  start_router h1spec "$PORT"
  say "h1spec: 33 cases ..."
  timeout 60 "$deno" run --quiet --no-check --allow-net "${H1SPEC:-$TOOLS/h1spec.ts}" 127.0.0.1 "${TRAFFIC##*:}" >"$WORK/h1spec.log" 2>&1 || true
  judge h1spec 33 h1spec "$WORK/h1spec.log"
}

# The groups of WebSocket cases that are run whole, those of which one case is, and what the report says of those that are not run.
WEBSOCKET_WHOLE=(1 2 3 4 5 6 7 9.1 9.2 9.5 9.6 9.7 9.8 10)
WEBSOCKET_ONE=(12.1.1 13.1.1)
websocket_left_out() {
  cat <<'TEXT'
Of the WebSocket cases (Autobahn's numbers) these are left out:

| group | what it is | why it is left out |
|---|---|---|
| 9.3, 9.4 | a message of 4 MiB in fragments of 64 bytes to 4 MiB | the echo behind the router takes minutes for them, with the router or without; the other groups of 9 send messages as large, whole or in other pieces |
| 12, 13 | compression (permessage-deflate), 216 cases, but for 12.1.1 and 13.1.1 | it is agreed upon and done by the two ends: the router passes `Sec-WebSocket-Extensions` and hands the bytes through as any others; the two show that it does |

TEXT
}

run_websocket() {
  local suite=$TOOLS/python/bin/kosoku direct cases=() group
  for group in "${WEBSOCKET_WHOLE[@]}"; do cases+=(-i "$group.*"); done
  for group in "${WEBSOCKET_ONE[@]}"; do cases+=(-i "$group"); done
  start_backend echo "$TOOLS/python/bin/python" $HERE/websocket_echo.py
  direct=$PORT
  start_router websocket "$direct"
  say "WebSocket cases directly: some minutes ..."
  timeout 900 "$suite" -p 2 "${cases[@]}" -o "$WORK/direct" "ws://127.0.0.1:$direct/" >"$WORK/websocket.log" 2>&1 || true
  say "WebSocket cases through the router ..."
  timeout 900 "$suite" -p 2 "${cases[@]}" -o "$WORK/through" "ws://$TRAFFIC/" >>"$WORK/websocket.log" 2>&1 || true
  judge WebSocket 280 websocket "$WORK/direct" "$WORK/through"
}

# One attack with 300 connections, and ordinary clients beside it: every attacker is gone in time, and no ordinary query fails.
attack() {
  local name=$1 within=$2 good most last left load slow succeeded failed errored timeout
  shift 2
  say "$name: 300 attackers, and 8 clients with 200 queries a second beside them ..."
  h2load --h1 -c 8 --rps 25 -D "$within" "http://$TRAFFIC/" >"$WORK/good.log" 2>&1 &
  load=$!
  slowhttptest "$@" -c 300 -r 150 -p 3 -l "$within" >"$WORK/attack.log" 2>&1 &
  slow=$!
  # Beside the 8 clients there may be the one with which the attack looks whether the service is still there.
  read -r most last left <<<"$(python3 $HERE/judge.py attackers "${TRAFFIC##*:}" 9 "$within")"
  wait "$load" || true
  kill "$slow" 2>/dev/null || true
  wait "$slow" 2>/dev/null || true
  good=$(sed -n 's/^requests: \([0-9]*\) total.* \([0-9]*\) succeeded, \([0-9]*\) failed, \([0-9]*\) errored, \([0-9]*\) timeout.*/\2 \3 \4 \5/p' "$WORK/good.log")
  read -r succeeded failed errored timeout <<<"${good:-0 1 0 0}"
  failed=$((failed + errored + timeout))
  say "$name: $most attackers, hung up on after $last s, $left left; $succeeded good queries, $failed failed"
  if ((most < 250 || left > 0 || failed > 0 || succeeded < 100)); then
    say "$name: FAILED"
    FAILED=1
  fi
  ROWS+=("| $name | $most attackers | hung up on after $last s | $left left | $succeeded queries of others beside it, $failed failed |")
}

run_slow() {
  start_backend backend "$TOOLS/python/bin/deno" run --quiet --allow-net $HERE/backend.ts
  start_router slow "$PORT"
  attack "slow headers" 30 -H -i 2 -x 24 -u "http://$TRAFFIC/"
  attack "slow body" 30 -B -i 2 -s 8192 -x 10 -t POST -u "http://$TRAFFIC/"
  attack "slow read" 120 -X -w 10 -y 20 -n 5 -z 32 -u "http://$TRAFFIC/large"
}

# What a part needs; the backends of all of them run in deno.
install() {
  case $1 in
    h2spec) scripts/install_test_tools.sh websocket "$TOOLS" h2spec "$TOOLS" ;;
    slow) scripts/install_test_tools.sh websocket "$TOOLS" slow ;;
    *) scripts/install_test_tools.sh "$1" "$TOOLS" ;;
  esac
}

versions() {
  printf 'h2spec %s, ' "$("${H2SPEC:-$(command -v h2spec || echo "$TOOLS/h2spec")}" --version 2>/dev/null | sed 's/Version: //' || echo "not run")"
  printf 'h1spec of 2024-10-28, '
  "$TOOLS/python/bin/pip" list --format freeze 2>/dev/null | grep -E '^(deno|kosoku|websockets)==' | tr '\n' ' ' | sed 's/==/ /g'
  printf '%s' "$(slowhttptest -h 2>&1 | sed -n 's/.*- version \(.*\)/slowhttptest \1/p')"
}

write_report() {
  {
    echo "# Conformance: the last run that was kept"
    echo
    echo "$(date -u +%Y-%m-%d), \`make conformance\`, $(nproc) cores, $(uname -sm), the router's defaults for every limit."
    echo "With $(versions)."
    echo
    echo "| suite | cases | passed | skipped | what fails, and why; for attacks: what became of everybody else |"
    echo "|---|---|---|---|---|"
    printf '%s\n' "${ROWS[@]}"
    echo
    websocket_left_out
    echo "Attackers are counted at the router's end. Those that hardly read are hung up on 30 s after the last time that they took anything."
    echo
    echo "A WebSocket case passes when it ends through the router as it does directly. For comparison: HAProxy 2.6 passes 140 of h2spec's 146"
    echo "cases and nginx 1.22 115; HAProxy passes 32 of h1spec's 33."
  } >"$REPORT"
  say "written: $REPORT"
}

MISSING=()
for part in "${PARTS[@]}"; do
  if install "$part"; then
    "run_$part"
  elif [ -n "$SKIP_MISSING" ]; then
    MISSING+=("$part")
  else
    exit 69
  fi
done
# What is kept is a whole run.
if [ -n "$REPORT" ] && [ ${#ROWS[@]} -ge 7 ]; then write_report; fi
for part in ${MISSING[@]+"${MISSING[@]}"}; do say "NOT RUN: $part (see above)"; done
if ((FAILED)); then
  say "FAILED"
  exit 1
fi
say "done"
