#!/usr/bin/env bash
# Measures the agent role: its traffic proxy beside HAProxy in TCP mode, in the same run, and its
# store beside the stated cost of the program it replaces. Prints one Markdown table to stdout.
#
#   ROUNDS=3 WINDOW=2 bench/agent.sh
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

# The program that this role replaces, on a machine like ours: CPU seconds per relayed GB, and CPU
# microseconds per store operation, both with a connection each. See README.md.
KNOWN_RELAY=0.55
KNOWN_STORE=17
PAIRS=${PAIRS:-5000}

need haproxy haproxy
need taskset util-linux
build

BACKEND_PORT=$(free_port)
BACKEND=127.0.0.1:$BACKEND_PORT
cat >"$WORK/towpath.toml" <<CONFIG
[routes.bench]
hosts = { default = { host = "127.0.0.1", service = "$BACKEND_PORT" } }
CONFIG

# both LABEL MODE...: the same load through the traffic proxy and through HAProxy.
both() {
    measure towpath "$@" --backend "$BACKEND" --route bench:default
    measure haproxy "$@" --backend "$BACKEND"
}

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    start_towpath towpath "$WORK/towpath.toml" agent --agent 127.0.0.1:0
    start_haproxy haproxy "$BACKEND_PORT"
    # First, while neither has memory of earlier loads at hand.
    both idle idle --conns "$PAIRS"
    both bulk8 bulk --conns 8
    both bulk1 bulk --conns 1
    both pingpong pingpong --conns 256 --size 64
    both connect connect --conns 64 --size 1024
    measure towpath update1 store update --conns 1
    measure towpath update64 store update --conns 64
    measure towpath query64 store query --conns 64
    stop_all
done

# beside MEASURE LABEL FIELD: a row whose other column is HAProxy.
beside() {
    echo "| $1 | $(cell towpath "$2" "$3") | HAProxy $(cell haproxy "$2" "$3") |" \
        "$(ratio "$(median towpath "$2" "$3")" "$(median haproxy "$2" "$3")") |"
}

# known MEASURE LABEL FIELD FIGURE: a row whose other column is a stated figure.
known() {
    echo "| $1 | $(cell towpath "$2" "$3") | known program $4 |" \
        "$(ratio "$(median towpath "$2" "$3")" "$4") |"
}

alone() { echo "| $1 | $(cell towpath "$2" "$3") | - | - |"; }

echo "| measure | towpath | beside | ratio |"
echo "|---|---|---|---|"
beside "relay, 8 streams, CPU s/GB" bulk8 cpu_s_per_gb
known "relay, 8 streams, CPU s/GB" bulk8 cpu_s_per_gb "$KNOWN_RELAY"
beside "relay, 8 streams, GB/s" bulk8 gb_per_s
beside "relay, 1 stream, CPU s/GB" bulk1 cpu_s_per_gb
beside "ping-pong 64 B x 256, CPU µs per round trip" pingpong cpu_us
beside "ping-pong 64 B x 256, p99 µs" pingpong p99_us
beside "connect, request, 1 KiB response, close, CPU µs" connect cpu_us
beside "idle relayed connection, bytes each of $PAIRS" idle bytes_per_pair
known "store update, 64 clients, CPU µs" update64 cpu_us "$KNOWN_STORE"
known "store query, 64 clients, CPU µs" query64 cpu_us "$KNOWN_STORE"
alone "store updates per second, 1 client" update1 per_s
alone "store updates per second, 64 clients" update64 per_s
alone "store queries per second, 64 clients" query64 per_s
echo
describe_machine
echo "HAProxy relays plain connections; towpath's are asked for by a route request each. A store" \
    "operation is a connection of its own, and an update is answered when it is on disk" \
    "($(df --output=fstype "$WORK" | tail -n 1))."
