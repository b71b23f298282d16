#!/usr/bin/env bash
# Measures the chain role from outside: what connections, datagrams and their headers cost each hop of
# one, two and three, beside a plain access listener of the same build, which is the relay engine with
# nothing before it. The load generator is the chain's client and the destination. Beside each figure
# stands the stated one of the program that this role replaces. Prints one Markdown table to stdout.
#
#   ROUNDS=2 WINDOW=1 WEAR=30000 IDLE=5000 bench/chain.sh
set -euo pipefail
# Many loads, and each is at its pace within a few milliseconds: all of it takes some minutes.
ROUNDS=${ROUNDS:-2}
WINDOW=${WINDOW:-1.5}
WARMUP=${WARMUP:-0.3}
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

# Connections that come and go before their rate is measured again. The client closes first, so that
# each leaves the hop a port in TIME_WAIT towards the destination.
WEAR=${WEAR:-30000}
# Idle connections: a hop wants two descriptors for each, and so does the generator.
IDLE=${IDLE:-$(($(ulimit -n) / 4 < 5000 ? $(ulimit -n) / 4 : 5000))}
# Clients x datagrams of each under way.
BURSTS="8x32 256x1"
TRAINS=4x48

# The program that this role replaces: CPU of one hop, as it was stated.
KNOWN_PLAIN="0.36-0.69"
KNOWN_SEALED="1.9-4.1"
KNOWN_CONNECT="49-170"
KNOWN_IDLE="19 000-77 000"
KNOWN_ECHOES="56-76"
# What HAProxy needed for a ping-pong round trip of 64 B x 256 where such figures were made.
KNOWN_HAPROXY=8.3

need haproxy haproxy
need taskset util-linux
build

KEY=$(head -c 32 /dev/urandom | base64)
PAYLOAD_KEY=$(head -c 32 /dev/urandom | base64)
BACKEND=127.0.0.1:$(free_port)
cat >"$WORK/hop.toml" <<CONFIG
[chain]
listen = ["127.0.0.1:0"]
key = "$KEY"
payload_key = "$PAYLOAD_KEY"
allow = ["127.0.0.0/8:*"]
CONFIG
for protocol in tcp udp; do
    cat >"$WORK/$protocol.toml" <<CONFIG
[[chain.access]]
name = "straight"
listen = "127.0.0.1:0"
protocol = "$protocol"
to = "$BACKEND"
via = []
CONFIG
done

# start_plain: the plain access listeners, for connections and for datagrams.
start_plain() {
    start_towpath relay "$WORK/tcp.toml" straight
    start_towpath straight "$WORK/udp.toml" straight
}

declare -A FURTHER
# start_hops MOST: so many hops, each a process of its own on the servers' core. The subject `hops.N` is
# the first N of them.
start_hops() {
    local at pids="" further=""
    for at in $(seq "$1"); do
        start_towpath "hop$at" "$WORK/hop.toml" chain
        pids=$pids,${PIDS[hop$at]}
        [ "$at" = 1 ] || further=$further,${ADDRESS[hop$at]}
        ADDRESS[hops.$at]=${ADDRESS[hop1]}
        PIDS[hops.$at]=${pids#,}
        FURTHER[$at]=${further#,}
    done
}

# chain HOPS LABEL LOAD FLAGS...: a load through so many hops.
chain() {
    local hops=$1 label=$2 load=$3
    shift 3
    measure "hops.$hops" "$label" chain "$load" --backend "$BACKEND" --hop-key "$KEY" \
        --further "${FURTHER[$hops]}" "$@"
}

# straight NAME LABEL LOAD FLAGS...: the same load without a hop.
straight() {
    local name=$1 label=$2 load=$3
    shift 3
    measure "$name" "$label" chain "$load" --backend "$BACKEND" --straight "$@"
}

# everywhere LABEL LOAD FLAGS...: a load of connections by the plain relay and through the hops, one right
# after the other.
everywhere() {
    local hops
    straight relay "$@"
    for hops in 1 2 3; do
        chain "$hops" "$@"
    done
}

# datagrams LABEL FLAGS...: one of datagrams.
datagrams() {
    local label=$1 hops
    shift
    straight straight "$label" datagrams "$@"
    for hops in 1 2; do
        chain "$hops" "$label" datagrams "$@"
    done
}

run_round() {
    local hops streams size shape
    # First, while nobody has memory of earlier loads at hand.
    start_plain
    straight relay idle idle --conns "$IDLE"
    stop_all
    for hops in 1 2 3; do
        start_hops "$hops"
        chain "$hops" idle idle --conns "$IDLE"
        stop_all
    done
    start_haproxy haproxy "${BACKEND##*:}"
    measure haproxy pingpong pingpong --conns 256 --size 64 --backend "$BACKEND"
    stop_all
    start_plain
    start_hops 3
    for streams in 1 8; do
        everywhere "bulk.$streams" bulk --conns "$streams"
        for hops in 1 2 3; do
            chain "$hops" "sealed.$streams" bulk --conns "$streams" --payload-key "$PAYLOAD_KEY"
        done
    done
    everywhere pingpong pingpong --conns 256 --size 64
    everywhere connect connect --conns 64 --size 1024
    for size in 64 1200; do
        for shape in $BURSTS; do
            datagrams "udp.$size.$shape" --size "$size" --conns "${shape%x*}" \
                --burst "${shape#*x}"
        done
        datagrams "trains.$size" --size "$size" --conns "${TRAINS%x*}" --burst "${TRAINS#*x}" \
            --trains
    done
    stop_all
    start_hops 1
    chain 1 fresh connect --conns 64 --size 1024 --hang-up
    chain 1 worn connect --conns 64 --size 1024 --hang-up --after "$WEAR"
    stop_all
}

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    run_round
done

# beside NAME LABEL FIELD NAME LABEL FIELD: the ratio of two medians.
beside() { ratio "$(median "$1" "$2" "$3")" "$(median "$4" "$5" "$6")"; }

# each HOPS LABEL: the medians of every hop's own CPU; a dash where that was not measured.
each() {
    local at one cells=""
    for at in $(seq "$1"); do
        one=$(median "hops.$1" "$2" "cpu_$at")
        [ -n "$one" ] || { echo - && return; }
        cells="$cells / $(awk -v x="$one" 'BEGIN { printf "%.3g", x }')"
    done
    echo "${cells# / }"
}

# row PLAIN LABEL FIELD: the end of a row, behind the measure's name and the figure of PLAIN, for which
# `-` is nobody. CPU of several hops is shown hop by hop.
row() {
    local hops cells=""
    for hops in 1 2 3; do
        case $hops$3 in
        1* | ?per_s | ?gb_per_s | ?packets_per_s | ?p99_us) cells="$cells $(cell "hops.$hops" "$2" "$3") |" ;;
        *) cells="$cells $(each "$hops" "$2") |" ;;
        esac
    done
    echo "$(cell "$1" "$2" "$3") |$cells $(beside hops.1 "$2" "$3" "$1" "$2" "$3")"
}

# sealed STREAMS: the same for payload that is sealed, beside what is not and passes by a plain relay.
sealed() {
    echo "| bulk, $1 x, sealed payload, CPU s/GB | - | $(cell hops.1 "sealed.$1" cpu_s_per_gb) |" \
        "$(each 2 "sealed.$1") | $(each 3 "sealed.$1") |" \
        "$(beside hops.1 "sealed.$1" cpu_s_per_gb relay "bulk.$1" cpu_s_per_gb) | $KNOWN_SEALED |"
}

# datagram_rows LABEL WORDS KNOWN
datagram_rows() {
    echo "| UDP $2, CPU µs per packet | $(row straight "$1" cpu_us) | - |"
    echo "| UDP $2, packets/s | $(row straight "$1" packets_per_s) | $3 |"
}

echo "| measure | plain relay | 1 hop | 2 hops, each | 3 hops, each | 1 hop to plain | known program |"
echo "|---|---|---|---|---|---|---|"
for streams in 1 8; do
    echo "| bulk, $streams x, CPU s/GB | $(row relay "bulk.$streams" cpu_s_per_gb) | $KNOWN_PLAIN |"
    sealed "$streams"
done
echo "| bulk, 8 x, GB/s | $(row relay bulk.8 gb_per_s) | - |"
echo "| ping-pong 64 B x 256, CPU µs | $(row relay pingpong cpu_us) | - |"
echo "| ping-pong 64 B x 256, per second | $(row relay pingpong per_s) | - |"
echo "| ping-pong 64 B x 256, p99 µs | $(row relay pingpong p99_us) | - |"
echo "| connect, 1 KiB, close, CPU µs | $(row relay connect cpu_us) | $KNOWN_CONNECT |"
echo "| connect, 1 KiB, close, per second | $(row relay connect per_s) | - |"
for size in 64 1200; do
    known=-
    [ "$size" != 64 ] || known="2 x $KNOWN_ECHOES thousand"
    for shape in $BURSTS; do
        datagram_rows "udp.$size.$shape" "$size B, ${shape%x*} flows x ${shape#*x}" "$known"
    done
    datagram_rows "trains.$size" "$size B in trains" -
done
idle="| idle connection, bytes | $(cell relay idle bytes_per_pair) |"
for hops in 1 2 3; do
    each=$(median "hops.$hops" idle bytes_per_pair | awk -v h="$hops" '{ printf "%.0f", $1 / h }')
    [ "$hops" = 1 ] && idle="$idle $(cell hops.1 idle bytes_per_pair) |" || idle="$idle $each |"
done
echo "$idle $(beside hops.1 idle bytes_per_pair relay idle bytes_per_pair) | $KNOWN_IDLE |"
echo
echo "| 1 hop, the client closes first | fresh | after $WEAR connections | ratio | known program |"
echo "|---|---|---|---|---|"
worn() {
    echo "| connections, $1 | $(cell hops.1 fresh "$2") | $(cell hops.1 worn "$2") |" \
        "$(beside hops.1 worn "$2" hops.1 fresh "$2") | $3 |"
}
worn "per second" per_s "falls to 20-80"
worn "CPU µs" cpu_us "$KNOWN_CONNECT"
echo
describe_machine
echo "Every hop is a process of its own with one worker, and all of them share core $SERVER_CPU. CPU of" \
    "several hops is that of each, in their order; rates are those of one core for all of them. plain" \
    "relay: an access listener without hops, whose connections the relay engine moves as it does a" \
    "hop's; for sealed payload the ratio is to what is not sealed. All subjects take a load one right" \
    "after the other. connect: connect, headers, responses, request, 1 KiB, close, 64 at a time. The" \
    "$WEAR connections left as many of the hop's own ports in TIME_WAIT towards the destination, and as" \
    "many headers in its memory. UDP: an echo behind the chain; a packet is a datagram that a hop has" \
    "passed on, so that an echo is two for each; \"flows x n\" have n datagrams under way each, and" \
    "trains of ${TRAINS#*x} are sent and taken by UDP_SEGMENT and UDP_GRO at both ends. idle: resident" \
    "memory of each hop for each of $IDLE connections after a round trip, the memory of its header" \
    "included."
awk -F '\t' '
    $3 == "lost" { lost += $4 }
    $3 == "load_percent" && $4 > most { most = $4; where = $1 " " $2 }
    END {
        printf "%d datagrams were lost in all rounds.", lost
        printf " The generator took most of its core with %s: %.0f %%.\n", where, most
    }
' "$RESULTS"
HAPROXY=$(median haproxy pingpong cpu_us)
echo "The machine is shared, so that only ratios within one run count. The known program's figures were" \
    "stated for a quieter machine, CPU and memory of one hop; HAProxy needed $KNOWN_HAPROXY µs for the ping-pong" \
    "of 64 B x 256 there, and in this run $HAPROXY µs, $(ratio "$HAPROXY" "$KNOWN_HAPROXY") times that."
