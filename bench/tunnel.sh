#!/usr/bin/env bash
# Measures the tunnel role from outside: `towpath serve` and `towpath expose` together, beside rathole
# in the same run where it can be built, else beside its stated figures. Both ends of a tunnel run on
# the servers' core and their costs are summed: what one end saves at the other's expense shows. Prints
# one Markdown table to stdout.
#
#   ROUNDS=3 WINDOW=1.5 IDLE=1000 bench/tunnel.sh
#
# RATHOLE=PATH names a rathole that is there already; RATHOLE=off does without.
set -euo pipefail
# Five subjects and eight loads: all of it takes about four minutes.
WINDOW=${WINDOW:-1.5}
WARMUP=${WARMUP:-0.3}
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

# Idle visitors: each end wants two descriptors for one, and so does the load.
IDLE=${IDLE:-$(($(ulimit -n) / 8 < 2000 ? $(ulimit -n) / 8 : 2000))}
# Milliseconds between visitors whose first byte is waited for.
GAP=${GAP:-5}

# Of rathole, on a machine like ours: CPU seconds per GB of both ends, best and worst; CPU microseconds
# for a connection; bytes of memory for an idle pair. From the comparison of such servers that this role
# was planned by.
KNOWN_S_PER_GB=1.08
KNOWN_S_PER_GB_MOST=1.63
KNOWN_CONNECT_US=94
KNOWN_IDLE=36200
RATHOLE_VERSION=0.5.0
# How long building it may take.
RATHOLE_PATIENCE=${RATHOLE_PATIENCE:-1500}

need taskset util-linux
build

TOKEN=0123456789abcdef0123456789abcdef
BACKEND=127.0.0.1:$(free_port)
FIRST_PORT=$(free_port)

# Builds rathole once, of the features that a plain tunnel needs, and sets RATHOLE; empty where it
# cannot be had. Without its own lock file: that names a crate which compilers since 1.80 refuse.
build_rathole() {
    case ${RATHOLE:-} in
    off) RATHOLE='' && return ;;
    ?*) return ;;
    esac
    local root=${CARGO_TARGET_DIR:-$REPOSITORY/target}/rathole-$RATHOLE_VERSION
    RATHOLE=$root/bin/rathole
    [ -x "$RATHOLE" ] && return
    note "building rathole $RATHOLE_VERSION"
    CARGO_TARGET_DIR=$root/target timeout "$RATHOLE_PATIENCE" cargo install rathole \
        --version "$RATHOLE_VERSION" --quiet --no-default-features --features server,client \
        --root "$root" >"$WORK/rathole.build" 2>&1 || true
    [ -x "$RATHOLE" ] && rm -rf "$root/target" && return
    note "rathole cannot be built here: $(grep -m 1 '^error' "$WORK/rathole.build" || true)"
    RATHOLE=''
}

# start_tunnel NAME POOL [FLAGS...]: both ends, one worker each; the public address is the subject's.
start_tunnel() {
    local name=$1 pool=$2 server log=$WORK/$1.expose.log
    shift 2
    cat >"$WORK/$name.toml" <<CONFIG
[tunnel]
listen = ["127.0.0.1:0"]
ports = "$FIRST_PORT-$((FIRST_PORT + 7))"
token = "$TOKEN"
pool = $pool
max_visitors = 100000
max_waiting = 4096
CONFIG
    start_towpath "$name" "$WORK/$name.toml" tunnel
    server=${PIDS[$name]}
    TOWPATH_TOKEN=$TOKEN start_process "$log" "$TOWPATH" expose --json \
        --server "${ADDRESS[$name]}" --identity "$WORK/$name.id" "$@" "$BACKEND"
    PIDS[$name]=$server,$STARTED_PID
    for _ in $(seq 100); do
        ADDRESS[$name]=$(sed -n 's/.*"public": *"\([^"]*\)".*/\1/p' "$log" | head -n 1)
        [ -n "${ADDRESS[$name]}" ] && return
        kill -0 "$STARTED_PID" 2>/dev/null || break
        sleep 0.05
    done
    cat "$log" >&2
    fail "towpath expose has no public address"
}

# start_rathole: both ends; its threads are as many as its cores, and so one.
start_rathole() {
    local main port server
    main=$(free_port)
    port=$(free_port)
    cat >"$WORK/rathole.server.toml" <<CONFIG
[server]
bind_addr = "127.0.0.1:$main"
default_token = "$TOKEN"
[server.services.bench]
bind_addr = "127.0.0.1:$port"
CONFIG
    cat >"$WORK/rathole.client.toml" <<CONFIG
[client]
remote_addr = "127.0.0.1:$main"
default_token = "$TOKEN"
[client.services.bench]
local_addr = "$BACKEND"
CONFIG
    RUST_LOG=error start_process "$WORK/rathole.server.log" \
        "$RATHOLE" --server "$WORK/rathole.server.toml"
    server=$STARTED_PID
    await_listener rathole "$main" "$WORK/rathole.server.log"
    RUST_LOG=error start_process "$WORK/rathole.client.log" \
        "$RATHOLE" --client "$WORK/rathole.client.toml"
    PIDS[rathole]=$server,$STARTED_PID
    ADDRESS[rathole]=127.0.0.1:$port
    await_listener rathole "$port" "$WORK/rathole.client.log"
}

build_rathole
SUBJECTS="towpath direct nopool mux"
[ -z "$RATHOLE" ] || SUBJECTS="$SUBJECTS rathole"

start() {
    case $1 in
    towpath) start_tunnel towpath 8 ;;
    direct) start_tunnel direct 8 --direct ;;
    nopool) start_tunnel nopool 0 --direct ;;
    mux) start_tunnel mux 0 --mux ;;
    rathole) start_rathole ;;
    esac
}

# loads NAME: all of them, the idle ones first, while there is no memory of earlier loads at hand.
loads() {
    local name=$1 streams
    measure "$name" idle idle --conns "$IDLE" --backend "$BACKEND"
    # Both ends anew: what is kept for those visitors is no part of the rest.
    stop_all
    start "$name"
    measure "$name" first tunnel first --gap "$GAP" --backend "$BACKEND"
    for streams in 1 8 64; do
        measure "$name" "bulk$streams" bulk --conns "$streams" --backend "$BACKEND"
    done
    for streams in 1 64; do
        measure "$name" "connect$streams" connect --conns "$streams" --size 1024 \
            --backend "$BACKEND"
    done
    measure "$name" pingpong pingpong --conns 64 --size 64 --backend "$BACKEND"
}

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    for name in $SUBJECTS; do
        start "$name"
        loads "$name"
        stop_all
    done
done

# row MEASURE LABEL FIELD [KNOWN]: all subjects, and ours to rathole's.
row() {
    local other=${4:--} beside
    beside=$(median rathole "$2" "$3")
    [ -n "$beside" ] && other=$(cell rathole "$2" "$3") || beside=${4:-}
    echo "| $1 | $(cell towpath "$2" "$3") | $(cell direct "$2" "$3") | $(cell nopool "$2" "$3") | $(cell mux "$2" "$3") |" \
        "$other | $(ratio "$(median towpath "$2" "$3")" "${beside%% *}") |"
}

told_beside() {
    [ -n "$RATHOLE" ] && echo "rathole $RATHOLE_VERSION" || echo "rathole, as stated"
}

echo "| measure | towpath | direct, pool of 8 | direct, no pool | mux | $(told_beside) | ratio |"
echo "|---|---|---|---|---|---|---|"
for streams in 1 8 64; do
    told="$streams stream$([ "$streams" = 1 ] || echo s)"
    row "$told, CPU s/GB" "bulk$streams" cpu_s_per_gb "$KNOWN_S_PER_GB to $KNOWN_S_PER_GB_MOST"
    row "$told, GB/s" "bulk$streams" gb_per_s
done
for streams in 1 64; do
    row "connect, request, 1 KiB response, close, $streams at a time, CPU µs" \
        "connect$streams" cpu_us "$KNOWN_CONNECT_US"
    row "the same, per second" "connect$streams" per_s
done
row "first byte of a service that speaks first, p50 µs" first p50_us
row "first byte of a service that speaks first, p99 µs" first p99_us
row "ping-pong 64 B x 64, CPU µs per round trip" pingpong cpu_us
row "ping-pong 64 B x 64, p99 µs" pingpong p99_us
row "idle visitor, bytes each of $IDLE" idle bytes_per_pair "$KNOWN_IDLE"
echo
describe_machine
echo "Costs are those of both ends of a tunnel together, which share the servers' core, so that a" \
    "rate is what one core moves through both of them; the load program is visitors and inside" \
    "service at once. first byte: one visitor at a time, $GAP ms after the one before it has left," \
    "from its connect to the first byte that the service sends when it is connected. idle: resident" \
    "memory of both ends. \"ratio\" is towpath's first column to rathole's."
if [ -z "$RATHOLE" ]; then
    echo "rathole could not be run here: its figures are stated ones, of a machine like this, and" \
        "the ratio is to the best of them."
fi
