#!/usr/bin/env bash
# Measures the gateway role from outside: what a forwarded message costs over few and many virtual
# connections, the round trip, opening and closing, memory. Beside each figure stands the stated one
# of the gateway that this role replaces, and how fast this machine was when compared with the one
# that it was stated for. Prints one Markdown table to stdout.
#
#   ROUNDS=3 WINDOW=1.5 AHEAD=524288 DIALECT=fastway bench/gateway.sh
set -euo pipefail
# Many loads, and each is at its pace within a few milliseconds: all of it takes about three minutes.
WINDOW=${WINDOW:-1.5}
WARMUP=${WARMUP:-0.3}
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

# Bytes of messages under way in a stream, over all clients together, heads included.
AHEAD=${AHEAD:-524288}
# What both ends speak: fastway or document.
DIALECT=${DIALECT:-fastway}
SIZES="64 1024 16384"
# Clients x virtual connections of each.
SHAPES="1x1 1x16 1x256 1x1000 1000x1"
# Idle clients, and virtual connections of each.
ENDPOINTS=${ENDPOINTS:-5000}
CONNS=${CONNS:-4}
# Connections opened and closed at a time.
PIPELINED=${PIPELINED:-64}

# The program that this role replaces, with its own clients: CPU microseconds per forwarded message
# and its best thousands of messages a second.
declare -A KNOWN_US=(
    [64.1x1]=2.3 [64.1x256]=2.1 [64.1x1000]=2.1 [64.1000x1]=8.0
    [1024.1x1]=3.8 [1024.1x256]=3.5 [1024.1x1000]=3.4 [1024.1000x1]=10.2
    [16384.1x1]=17 [16384.1x256]=19 [16384.1x1000]=21
)
declare -A KNOWN_THOUSANDS=(
    [64.1x1]=200 [64.1x256]=229 [64.1x1000]=162 [64.1000x1]=106
    [1024.1x1]=142 [1024.1x256]=152 [1024.1x1000]=118 [1024.1000x1]=74
    [16384.1x1]=31 [16384.1x256]=27 [16384.1x1000]=21
)
# The same with a bare generator in the place of one client: the harder figures to meet.
declare -A BARE_US=([64]=1.8 [1024]=2.5 [16384]=15)
declare -A BARE_THOUSANDS=([64]=503 [1024]=298 [16384]=47)
KNOWN_P50=30
KNOWN_P99=307
KNOWN_OPEN_US=15
KNOWN_OPENS=23000
# 25 MB with 1000 clients, 9 MB with none.
KNOWN_CLIENT_BYTES=16000
# What HAProxy needed for a ping-pong round trip of 64 B x 256 where all that was measured.
KNOWN_HAPROXY=8.3

need haproxy haproxy
need taskset util-linux
build

KEY=a-key-that-opens-nothing-but-this-bench
BACKEND_PORT=$(free_port)
cat >"$WORK/towpath.toml" <<CONFIG
[gateway]
clients = ["127.0.0.1:0"]
servers = ["127.0.0.1:0"]
server_dialect = "$DIALECT"
auth_key = "$KEY"
max_conns_per_client = 0
CONFIG

# gateway LABEL LOAD CLIENTSxCONNS FLAGS...: one load of the gateway.
gateway() {
    local label=$1 load=$2 shape=$3
    shift 3
    measure towpath "$label" gateway "$load" --clients "${shape%x*}" --conns "${shape#*x}" "$@" \
        --servers "$SERVERS" --key "$KEY" --dialect "$DIALECT"
}

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    start_towpath towpath "$WORK/towpath.toml" gateway-clients
    SERVERS=$(address_in "$WORK/towpath.home/addresses" gateway-servers)
    [ -n "$SERVERS" ] || fail "towpath does not listen for servers"
    start_haproxy haproxy "$BACKEND_PORT"
    # First, while it has no memory of earlier loads at hand.
    gateway idle idle "${ENDPOINTS}x$CONNS"
    measure haproxy pingpong pingpong --conns 256 --size 64 --backend "127.0.0.1:$BACKEND_PORT"
    for size in $SIZES; do
        for shape in $SHAPES; do
            gateway "stream.$size.$shape" stream "$shape" --size "$size" --ahead "$AHEAD"
        done
    done
    for shape in 1x1 1x256 1000x1; do
        gateway "pingpong.$shape" pingpong "$shape"
    done
    gateway open1 open 1x1
    gateway open open "1x$PIPELINED"
    stop_all
done

HAPROXY=$(median haproxy pingpong cpu_us)
FACTOR=$(ratio "$HAPROXY" "$KNOWN_HAPROXY")

times() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6g\n", a * b }'; }

# row MEASURE LABEL FIELD KNOWN EXPECTED: EXPECTED is what KNOWN would be at this machine's speed.
row() {
    local ours
    ours=$(median towpath "$2" "$3")
    echo "| $1 | $(cell towpath "$2" "$3") | ${4:--} | $(ratio "$ours" "${4:-0}") |" \
        "$(ratio "$ours" "$5") |"
}

# A cost grows where the machine is slower, a rate falls; KNOWN may be missing.
cost() { row "$1" "$2" "$3" "${4:-}" "$(times "${4:-0}" "$FACTOR")"; }
rate() { row "$1" "$2" "$3" "${4:-}" "$(times "${4:-0}" "$(ratio 1 "$FACTOR")")"; }

# told SHAPE: in words.
told() {
    local clients=${1%x*} conns=${1#*x}
    if [ "$clients" = 1 ]; then echo "1 client x $conns"; else echo "$clients clients x $conns"; fi
}

stream_rows() {
    local size shape
    for size in $SIZES; do
        for shape in $SHAPES; do
            cost "stream $size B, $(told "$shape"), CPU µs per message" \
                "stream.$size.$shape" cpu_us "${KNOWN_US[$size.$shape]:-}"
        done
        cost "stream $size B, 1 client x 1, CPU µs per message; bare generator" \
            "stream.$size.1x1" cpu_us "${BARE_US[$size]}"
    done
    for size in $SIZES; do
        for shape in $SHAPES; do
            rate "stream $size B, $(told "$shape"), messages/s" "stream.$size.$shape" \
                messages_per_s "${KNOWN_THOUSANDS[$size.$shape]:+${KNOWN_THOUSANDS[$size.$shape]}000}"
        done
        rate "stream $size B, 1 client x 1, messages/s; bare generator" \
            "stream.$size.1x1" messages_per_s "${BARE_THOUSANDS[$size]}000"
    done
}

echo "| measure | towpath | known gateway | ratio | ratio by machine |"
echo "|---|---|---|---|---|"
stream_rows
cost "pingpong 64 B, 1 client x 256, CPU µs per message" pingpong.1x256 cpu_us
cost "pingpong 64 B, 1000 clients x 1, CPU µs per message" pingpong.1000x1 cpu_us
rate "pingpong 64 B, 1000 clients x 1, messages/s" pingpong.1000x1 messages_per_s
cost "pingpong 64 B, 1 client x 1, p50 µs" pingpong.1x1 p50_us "$KNOWN_P50"
cost "pingpong 64 B, 1 client x 1, p99 µs" pingpong.1x1 p99_us "$KNOWN_P99"
cost "open and close, $PIPELINED at a time, CPU µs" open cpu_us "$KNOWN_OPEN_US"
rate "open and close, $PIPELINED at a time, per second" open per_s "$KNOWN_OPENS"
cost "open and close, one at a time, CPU µs" open1 cpu_us "$KNOWN_OPEN_US"
rate "open and close, one at a time, per second" open1 per_s "$KNOWN_OPENS"
row "idle client, bytes each of $ENDPOINTS" idle bytes_per_client "$KNOWN_CLIENT_BYTES" 0
row "idle virtual connection, bytes each of $((ENDPOINTS * CONNS))" idle bytes_per_conn "" 0
echo
describe_machine
echo "A message is a frame that the gateway has forwarded; the server end gives every message back," \
    "so a round trip is two. stream: $AHEAD bytes of messages under way over all clients together," \
    "one message each at least. pingpong: one message under way on each virtual connection. open and" \
    "close: from the dial until the Close has come back. idle: resident memory after a sign of life" \
    "of each client, and after a message to and fro on each connection. \"bare generator\": the known" \
    "gateway's figure was taken with a generator in the place of its own client. Both ends speak the" \
    "$DIALECT dialect."
awk -F '\t' '
    $3 == "load_percent" && $4 > most { most = $4; where = $2 }
    END { printf "The generator never took more than %.0f %% of its core (%s).\n", most, where }
' "$RESULTS"
echo "The known gateway was measured where HAProxy needed $KNOWN_HAPROXY µs for a ping-pong of 64 B x" \
    "256; in this run it needed $HAPROXY µs, $FACTOR times that. \"ratio\" is against the figure as" \
    "stated, \"ratio by machine\" against what it would be by that factor."
