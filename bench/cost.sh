#!/usr/bin/env bash
# What a query costs: user instructions by callgrind, system calls, nanoseconds per policy decision, memory at rest.
#
# Instructions are the difference of two runs of different length, so that starting up and compiling plugins does not count. They repeat
# to within a fraction of a percent whatever else the machine does, so they show what wall-clock time hides.
#
# Usage: bench/cost.sh [OUT.md]        (writes to standard output too). Exit 1 when a target is missed, 64 where the command line makes no sense.
# Needs: valgrind strace nginx nghttp2-client (apt-get install valgrind strace nginx-light nghttp2-client)
set -euo pipefail
cd "$(dirname "$0")/.."
case "$*" in
    --help | -h) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' bench/cost.sh; exit 0 ;;
    -* | *" "*) echo "bench/cost.sh: it takes a file to write to, and not: $*" >&2; exit 64 ;;
esac
out=${1:-/dev/null}
[ -d "$(dirname "$out")" ] || { echo "bench/cost.sh: $out: there is no folder $(dirname "$out")" >&2; exit 64; }
for tool in valgrind strace nginx h2load; do
    command -v "$tool" >/dev/null || { echo "bench/cost.sh: $tool is missing: apt-get install valgrind strace nginx-light nghttp2-client" >&2; exit 69; }
done

scripts/build_dist.sh --as-is
target=$(realpath "${CARGO_TARGET_DIR:-target}")
bin=$target/dist/switchback
work=$(mktemp -d)
running=()
stop() {
    for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
blue=$(port) canary=$(port)
body=$(printf 'x%.0s' $(seq 1024))
cat >"$work/nginx.conf" <<CONF
worker_processes 1; daemon off; pid $work/nginx.pid; error_log $work/nginx.log;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 100000000; client_body_temp_path $work; proxy_temp_path $work;
    fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
    server { listen 127.0.0.1:$blue; location / { return 200 "$body"; } }
    server { listen 127.0.0.1:$canary; location / { return 200 "$body"; } }
}
CONF
nginx -c "$work/nginx.conf" -p "$work" 2>/dev/null &
running+=($!)
cat >"$work/switchback.toml" <<CONF
[listen]
traffic = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 1
[state]
data_dir = "$work/data"
[[route]]
name = "search"
match = { path_prefix = "/" }
unit = ["header:x-user-id", "cookie:sid", "client-address"]
initial = { live = "blue", canary_percent = "10" }
[route.pools.blue]
endpoints = ["http://127.0.0.1:$blue"]
health = { path = "/" }
[route.pools.canary]
endpoints = ["http://127.0.0.1:$canary"]
health = { path = "/" }
CONF

# Starts the router under the given command; sets $router and $traffic and $admin.
start() {
    : >"$work/line"
    "$@" "$bin" serve --config "$work/switchback.toml" >"$work/line" 2>"$work/log" &
    router=$!
    running+=("$router")
    until grep -q listening "$work/line"; do
        kill -0 "$router" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    traffic=$(sed -n 's/.*traffic \([^,]*\),.*/\1/p' "$work/line")
    admin=$(sed -n 's/.*admin \(.*\)/\1/p' "$work/line")
    until curl -sf "http://$admin/readyz" >/dev/null; do sleep 0.1; done
}

load() {
    h2load --h1 -n "$1" -c 8 -t 1 -H 'x-user-id: user42' -H 'user-agent: Mozilla/5.0 (X11; Linux x86_64)' -H 'accept: */*' \
        -H 'accept-encoding: gzip, deflate' -H 'cookie: sid=abcdef0123456789; theme=dark' "http://$traffic/search?q=hello" >"$work/load"
    grep -q " $1 succeeded, 0 failed" "$work/load" || { cat "$work/load" >&2; exit 1; }
}

# Total user instructions of a run with $1 queries.
instructions() {
    start valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.$1" --log-file="$work/valgrind.log"
    load "$1"
    kill "$router"
    wait "$router" || true
    sed -n 's/.*Collected : //p' "$work/valgrind.log"
}

few=2000 many=10000
# The first start compiles the policy, which the others then find in the cache: once for each kind of machine, and valgrind is one.
echo "warming up under callgrind" >&2
instructions 100 >"$work/warm-up"
per_query() {
    echo "counting instructions: $few and $many queries $1, under callgrind" >&2
    local first second
    first=$(instructions $few)
    second=$(instructions $many)
    echo $(((second - first) / (many - few)))
}
per_query=$(per_query "without experiments")

echo "counting system calls" >&2
start strace -f -c -o "$work/strace.idle"
kill "$(pgrep -P "$router" | head -n 1)"; wait "$router" || true
start strace -f -c -o "$work/strace"
load $many
kill "$(pgrep -P "$router" | head -n 1)"; wait "$router" || true
total() { awk '$NF == "total" { for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+$/ && $i > best) best = $i; print best }' "$1"; }
syscalls=$(awk -v busy="$(total "$work/strace")" -v idle="$(total "$work/strace.idle")" -v n=$many 'BEGIN { printf "%.2f", (busy - idle) / n }')

echo "measuring memory at rest" >&2
start env
sleep 1
rss_kb=$(awk '/^VmRSS/ { print $2 }' "/proc/$router/status")
load 20000
rss_after_kb=$(awk '/^VmRSS/ { print $2 }' "/proc/$router/status")
kill "$router"; wait "$router" || true

# Everybody is in it; whether in control or in the other arm is the salt's choice, and costs the same.
start env
"$bin" experiment create search arms --percent 100 --arm control=live --arm other=canary --admin "http://$admin" \
    --token-file "$work/data/admin.token" >/dev/null
kill "$router"; wait "$router" || true
in_an_arm=$(per_query "in an experiment")

echo "measuring decisions" >&2
(cd "$work" && "$bin" policy bench split-weighted --seconds 5 --json) >"$work/bench.json"

{
    echo "# What a query costs"
    echo
    echo "\`bench/cost.sh\`, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD), $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(rustc --version)"
    echo
    echo "| | measured | target |"
    echo "|---|---|---|"
    echo "| user instructions per query, GET, sticky 90/10 split by the WebAssembly policy | $per_query | <= 22,000 |"
    echo "| the same in an arm of an experiment | $in_an_arm | |"
    echo "| system calls per query | $syscalls | |"
    echo "| memory at rest (RSS) | $((rss_kb / 1024)) MB | <= 60 MB |"
    echo "| memory after 20,000 queries | $((rss_after_kb / 1024)) MB | |"
    echo
    echo "\`switchback policy bench split-weighted --seconds 5 --json\` (target: p50 <= 300 ns):"
    echo
    echo '```json'
    python3 -m json.tool "$work/bench.json"
    echo '```'
} | tee "$out"

p50_ns=$(python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["plugin"]["p50_ns"]))' "$work/bench.json")
if ((per_query > 22000 || rss_kb / 1024 > 60 || p50_ns > 300)); then
    echo "bench/cost.sh: a target is missed" >&2
    exit 1
fi
