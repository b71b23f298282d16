#!/usr/bin/env bash
# The loads for plain TCP relays, and the table of their results: what bench/relay.sh and
# bench/compare.sh have in common. Sourced after bench/lib.sh, never run by itself.
set -euo pipefail

PAIRS=${PAIRS:-5000}
BACKEND_PORT=$(free_port)

# start_access NAME: towpath with one plain access listener.
start_access() {
    cat >"$WORK/$1.toml" <<CONFIG
[[chain.access]]
name = "bench"
listen = "127.0.0.1:0"
via = []
to = "127.0.0.1:$BACKEND_PORT"
CONFIG
    start_towpath "$1" "$WORK/$1.toml" bench --agent off
}

# start_subject NAME
start_subject() {
    case $1 in
    towpath) start_access towpath ;;
    haproxy) start_haproxy haproxy "$BACKEND_PORT" ;;
    haproxy-splice)
        start_haproxy haproxy-splice "$BACKEND_PORT" "tune.pipesize 1048576" "option splice-auto"
        ;;
    nginx) start_nginx nginx "$BACKEND_PORT" ;;
    socat) start_socat socat "$BACKEND_PORT" ;;
    *) fail "unknown subject $1" ;;
    esac
}

# Label, rate, cost, and the load program's words. The idle measure comes first, while no subject
# has memory of earlier loads at hand.
LOADS="\
idle           -         bytes_per_pair  idle --conns $PAIRS
bulk-1         gb_per_s  cpu_s_per_gb    bulk --conns 1
bulk-8         gb_per_s  cpu_s_per_gb    bulk --conns 8
bulk-64        gb_per_s  cpu_s_per_gb    bulk --conns 64
both-1         gb_per_s  cpu_s_per_gb    bulk --both --conns 1
both-8         gb_per_s  cpu_s_per_gb    bulk --both --conns 8
both-64        gb_per_s  cpu_s_per_gb    bulk --both --conns 64
ping-64x1      per_s     cpu_us          pingpong --size 64 --conns 1
ping-64x256    per_s     cpu_us          pingpong --size 64 --conns 256
ping-1024x1    per_s     cpu_us          pingpong --size 1024 --conns 1
ping-1024x256  per_s     cpu_us          pingpong --size 1024 --conns 256
connect        per_s     cpu_us          connect --size 1024 --conns 64
fair           per_s     -               fair --size 64 --conns 257"

# can SUBJECT LABEL: a relay with a process for each connection is asked for a few only. Thousands
# would say nothing new, and CPU time that is counted in ticks is lost in many short shares.
can() { [ "$1" != socat ] || [[ $2 =~ ^(bulk|both)-[18]$|^ping-.*x1$ ]]; }

# run_rounds SUBJECT...: every load on every subject, side by side, round after round.
run_rounds() {
    local round subject label rest words
    for round in $(seq "$ROUNDS"); do
        note "round $round of $ROUNDS"
        for subject in "$@"; do
            start_subject "$subject"
        done
        while read -r label _ _ rest; do
            read -ra words <<<"$rest"
            for subject in "$@"; do
                can "$subject" "$label" || continue
                measure "$subject" "$label" "${words[@]}" --backend "127.0.0.1:$BACKEND_PORT"
            done
        done <<<"$LOADS"
        stop_all
    done
}

# print_table SUBJECT...: a row for each load and subject. The ratio is the first subject's cost
# to this one's, so that less than 1 means that the first is cheaper.
print_table() {
    local subject label rate cost first=$1 mine
    echo "| load | relay | GB/s or 1/s | p50 µs | p99 µs | p99.9 µs | CPU or bytes | ratio |"
    echo "|---|---|---|---|---|---|---|---|"
    while read -r label rate cost _; do
        mine=$(median "$first" "$label" "$cost")
        for subject in "$@"; do
            can "$subject" "$label" || continue
            echo "| $label | $subject | $(cell "$subject" "$label" "$rate") |" \
                "$(cell "$subject" "$label" p50_us) | $(cell "$subject" "$label" p99_us) |" \
                "$(cell "$subject" "$label" p999_us) | $(cell "$subject" "$label" "$cost") |" \
                "$(ratio "$mine" "$(median "$subject" "$label" "$cost")") |"
        done
    done <<<"$LOADS"
    echo
    echo "CPU: seconds per GB for bulk and both, microseconds per round trip or connection for" \
        "ping and connect; bytes: resident memory for each of $PAIRS idle pairs. fair: 256" \
        "interactive connections beside one bulk stream. Ratio: $first to this relay."
    describe_machine
}

# print_costs SUBJECT...: what bench/plot.sh draws.
print_costs() {
    local subject label cost unit
    while read -r label _ cost _; do
        case $cost in
        cpu_s_per_gb) unit="CPU s per GB" ;;
        bytes_per_pair) unit="bytes per idle pair" ;;
        cpu_us) [ "$label" = connect ] && unit="CPU µs per connection" || unit="CPU µs per round trip" ;;
        *) continue ;;
        esac
        for subject in "$@"; do
            can "$subject" "$label" || continue
            printf '%s\t%s\t%s\t%s\n' "$label" "$subject" "$unit" \
                "$(median "$subject" "$label" "$cost")"
        done
    done <<<"$LOADS"
}
