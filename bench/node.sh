#!/usr/bin/env bash
# Measures the node role from outside: what a relayed frame costs with few and many peers and nodes,
# the round trip, how fast addresses are given out, memory. Beside each figure stands the stated one
# of the server that this role replaces, and how fast this machine was when compared with the one
# that it was stated for. Prints one Markdown table to stdout.
#
#   ROUNDS=3 WINDOW=1.5 AHEAD=524288 bench/node.sh
set -euo pipefail
# Many loads, and each is at its pace within a few milliseconds: all of it takes about two minutes.
WINDOW=${WINDOW:-1.5}
WARMUP=${WARMUP:-0.3}
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

# Bytes of frames under way in a stream, over all peers together, heads included.
AHEAD=${AHEAD:-524288}
SIZES="64 1024 65536"
# Peers x nodes.
SHAPES="1x1 16x1 16x16"
# Peers of one node that have but one frame under way each: nothing comes in runs.
SPARSE=${SPARSE:-256}
# Nodes that ask for their address at the same time.
PIPELINED=${PIPELINED:-64}
# Idle nodes, each with a peer: the server wants two descriptors for a connection.
IDLE=${IDLE:-$(($(ulimit -n) / 5 < 5000 ? $(ulimit -n) / 5 : 5000))}
# The ports that are lent. One is used up by each allocation, since a node that has left keeps its
# own; those who ask come from other addresses of this host, so that the kernel's own ports for
# outgoing connections, which lie in this range too, are not in the way.
PORTS=${PORTS:-10000-64999}
# So long is asked for addresses: the range would last for 40 000 of them a second.
ASKING=${ASKING:-1}

# The server that this role replaces: CPU microseconds per relayed frame, and at 64 KiB CPU seconds
# for a gigabyte; the best number of allocations a second that was seen.
declare -A KNOWN_US=([64]=8.2 [1024]=12.2)
KNOWN_S_PER_GB=2.7
KNOWN_ALLOCATIONS=800
# What is asked of this one: a third of the costs, and so many allocations a second.
WANTED_ALLOCATIONS=5000
# What HAProxy needed for a ping-pong round trip of 64 B x 256 where all that was measured.
KNOWN_HAPROXY=8.3

need haproxy haproxy
need taskset util-linux
build

BACKEND_PORT=$(free_port)
cat >"$WORK/towpath.toml" <<CONFIG
[node]
listen = ["127.0.0.1:0"]
ports = "$PORTS"
CONFIG

# node LABEL LOAD FLAGS...: one load of the node role.
node() {
    local label=$1 load=$2
    shift 2
    measure towpath "$label" node "$load" "$@"
}

# start: a server that has lent no port.
start() { start_towpath towpath "$WORK/towpath.toml" node; }

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    start_haproxy haproxy "$BACKEND_PORT"
    measure haproxy pingpong pingpong --conns 256 --size 64 --backend "127.0.0.1:$BACKEND_PORT"
    stop_all
    start
    # First, while it has no memory of earlier loads at hand.
    node idle idle --nodes "$IDLE"
    stop_all
    start
    for shape in $SHAPES; do
        for size in $SIZES; do
            node "stream.$size.$shape" stream --peers "${shape%x*}" --nodes "${shape#*x}" \
                --size "$size" --ahead "$AHEAD"
        done
        node "pingpong.$shape" pingpong --peers "${shape%x*}" --nodes "${shape#*x}"
    done
    node sparse stream --peers "$SPARSE" --ahead 1
    for lanes in 1 "$PIPELINED"; do
        stop_all
        start
        WINDOW=$ASKING node "register.$lanes" register --conns "$lanes"
    done
    stop_all
done

HAPROXY=$(median haproxy pingpong cpu_us)
FACTOR=$(ratio "$HAPROXY" "$KNOWN_HAPROXY")

times() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.6g\n", a * b }'; }

# share A B: A / B with two digits that count, or a dash.
share() {
    awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (a && b) printf "%.2g\n", a / b; else print "-" }'
}

# third OURS KNOWN: whether a cost is at most a third of the known one.
third() {
    awk -v a="${1:-0}" -v b="${2:-0}" \
        'BEGIN { if (!a || !b) print "-"; else print (3 * a <= b ? "met" : "missed") }'
}

# row MEASURE LABEL FIELD KNOWN EXPECTED MARK: EXPECTED is what KNOWN would be at this machine's
# speed.
row() {
    local ours
    ours=$(median towpath "$2" "$3")
    echo "| $1 | $(cell towpath "$2" "$3") | ${4:--} | $(share "$ours" "${4:-0}") |" \
        "$(share "$ours" "${5:-0}") | $6 |"
}

# A cost grows where the machine is slower, and is to be a third; KNOWN may be missing.
cost() {
    local expected
    expected=$(times "${4:-0}" "$FACTOR")
    row "$1" "$2" "$3" "${4:-}" "$expected" "$(third "$(median towpath "$2" "$3")" "$expected")"
}

# A rate falls there; it has a mark of its own, if any.
rate() {
    local mark=-
    if [ -n "${5:-}" ]; then
        mark=$(awk -v a="$(median towpath "$2" "$3")" -v b="$5" \
            'BEGIN { print (a + 0 >= b ? "met" : "missed") }')
    fi
    row "$1" "$2" "$3" "${4:-}" "$(times "${4:-0}" "$(ratio 1 "$FACTOR")")" "$mark"
}

# plain MEASURE LABEL FIELD: a figure that the known server has none for.
plain() { row "$1" "$2" "$3" "" "" -; }

# told SHAPE: in words.
told() {
    local peers=${1%x*} nodes=${1#*x}
    echo "$peers peer$([ "$peers" = 1 ] || echo s) → $nodes node$([ "$nodes" = 1 ] || echo s)"
}

frame_rows() {
    local size shape
    for size in $SIZES; do
        for shape in $SHAPES; do
            cost "stream $size B, $(told "$shape"), CPU µs per frame" \
                "stream.$size.$shape" cpu_us "${KNOWN_US[$size]:-}"
        done
    done
    cost "one 64 B frame of each under way, $(told "${SPARSE}x1"), CPU µs per frame" \
        sparse cpu_us "${KNOWN_US[64]}"
    for shape in $SHAPES; do
        cost "stream 65536 B, $(told "$shape"), CPU s per GB" \
            "stream.65536.$shape" cpu_s_per_gb "$KNOWN_S_PER_GB"
    done
    for size in $SIZES; do
        for shape in $SHAPES; do
            plain "stream $size B, $(told "$shape"), frames/s" "stream.$size.$shape" frames_per_s
        done
    done
    plain "one 64 B frame of each under way, $(told "${SPARSE}x1"), frames/s" sparse frames_per_s
}

trip_rows() {
    local shape
    for shape in $SHAPES; do
        plain "round trip 64 B, $(told "$shape"), p50 µs" "pingpong.$shape" p50_us
        plain "round trip 64 B, $(told "$shape"), p99 µs" "pingpong.$shape" p99_us
        plain "round trip 64 B, $(told "$shape"), CPU µs per frame" "pingpong.$shape" cpu_us
    done
}

allocation_rows() {
    local lanes how
    for lanes in "$PIPELINED" 1; do
        how="$lanes at a time"
        [ "$lanes" != 1 ] || how="one at a time"
        local wanted=""
        [ "$lanes" = 1 ] || wanted=$WANTED_ALLOCATIONS
        rate "new address, $how, per second" "register.$lanes" per_s "$KNOWN_ALLOCATIONS" "$wanted"
        plain "new address, $how, CPU µs" "register.$lanes" cpu_us
        plain "new address, $how, p50 µs" "register.$lanes" p50_us
        plain "new address, $how, p99 µs" "register.$lanes" p99_us
    done
}

echo "| measure | towpath | known server | ratio | ratio by machine | mark |"
echo "|---|---|---|---|---|---|"
frame_rows
trip_rows
allocation_rows
plain "idle node, bytes each of $IDLE" idle bytes_per_node
plain "idle peer that has sent a frame, bytes each of $IDLE" idle bytes_per_peer
echo
describe_machine
echo "A frame is one that has come to a main connection; its size is that of the body, a whole" \
    "message with its sender, behind ten bytes of head. stream: $AHEAD bytes of frames under way" \
    "over all peers together, one frame each at least. round trip: one frame under way for each" \
    "peer, from its write to the node's address until the answer, which the node sends to the" \
    "peer's own public address, is at the peer's main connection: two relayed frames. new address:" \
    "connect, ProxyRequest of a node that was never seen, ProxyResponse, close; time until the" \
    "response; $ASKING s instead of $WINDOW. idle: resident memory."
awk -F '\t' '
    $3 == "load_percent" && $4 > most { most = $4; where = $2 }
    END { printf "The generator never took more than %.0f %% of its core (%s).\n", most, where }
' "$RESULTS"
echo "The known server was measured where HAProxy needed $KNOWN_HAPROXY µs for a ping-pong of 64 B x" \
    "256; in this run it needed $HAPROXY µs, $FACTOR times that. \"ratio\" is against the figure as" \
    "stated (of 300 to $KNOWN_ALLOCATIONS allocations a second the best), \"ratio by machine\"" \
    "against what it would be by that factor. The mark is at most a third of that cost, and" \
    "$WANTED_ALLOCATIONS allocations a second. The known server reads and writes every frame by" \
    "itself, so its cost does not depend on how they come; towpath's does, and \"one 64 B frame of" \
    "each under way\" is the load that gives it least to do at once."
