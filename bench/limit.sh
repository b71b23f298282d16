#!/usr/bin/env bash
# Measures how well a bandwidth limit is kept, what it costs, and that another listener of the same server
# is untouched: access listeners with `bandwidth` and one without, side by side, one table.
#
#   ROUNDS=3 WINDOW=5 RATES="1M 20M 200M" bench/limit.sh
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

RATES=${RATES:-1M 20M 200M}
WINDOW=${WINDOW:-5}
# What a bucket gives at once has passed by then.
WARMUP=${WARMUP:-1}
BACKEND_PORT=$(free_port)

need taskset util-linux
build

# listener NAME BANDWIDTH: its lines of the configuration.
listener() {
    cat <<CONFIG
[[chain.access]]
name = "$1"
listen = "127.0.0.1:0"
via = []
to = "127.0.0.1:$BACKEND_PORT"
bandwidth = "$2"
CONFIG
}

for rate in 0 $RATES; do
    listener "at-$rate" "$rate"
done >"$WORK/limit.toml"
start_towpath limit "$WORK/limit.toml" "at-0" --agent off
for rate in 0 $RATES; do
    ADDRESS[at-$rate]=$(address_in "$WORK/limit.home/addresses" "at-$rate")
    PIDS[at-$rate]=${PIDS[limit]}
done

for round in $(seq "$ROUNDS"); do
    note "round $round of $ROUNDS"
    for rate in 0 $RATES; do
        for conns in 1 8; do
            measure "at-$rate" "bulk-$conns" bulk --conns "$conns" --backend "127.0.0.1:$BACKEND_PORT"
        done
    done
done

# bytes SIZE: as a number.
bytes() { numfmt --from=iec "$1"; }

echo "| limit | pairs | MB/s | of the limit | CPU s per GB |"
echo "|---|---|---|---|---|"
for rate in $RATES 0; do
    for conns in 1 8; do
        figures "at-$rate" "bulk-$conns" gb_per_s | awk -v limit="$(bytes "$rate")" \
            -v rate="$rate" -v conns="$conns" -v cpu="$(cell "at-$rate" "bulk-$conns" cpu_s_per_gb)" '
            { v[NR] = $1 * 1e9 }
            END {
                middle = v[int((NR + 1) / 2)]
                share = limit ? sprintf("%.1f %% (%.1f - %.1f)", 100 * middle / limit,
                    100 * v[1] / limit, 100 * v[NR] / limit) : "-"
                printf "| %s | %d | %.1f | %s | %s |\n", limit ? rate : "none", conns,
                    middle / 1e6, share, cpu
            }'
    done
done
echo
describe_machine
