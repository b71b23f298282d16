#!/usr/bin/env bash
# Measures towpath's plain relay beside its peers, installed from Debian's packages and set up for
# the same work, interleaved in one run. Prints one table, and draws its costs as a chart.
#
#   ROUNDS=3 WINDOW=2 CHART=bench/out/compare.svg bench/compare.sh [SUBJECT...]
#
# Subjects: towpath haproxy haproxy-splice nginx socat; the first is what the others are held
# against. All of them by default.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=bench/plain.sh
. "$(dirname "$0")/plain.sh"

CHART=${CHART:-$REPOSITORY/bench/out/compare.svg}
[ $# -gt 0 ] || set -- towpath haproxy haproxy-splice nginx socat
need taskset util-linux
for subject in "$@"; do
    case $subject in
    haproxy*) need haproxy haproxy ;;
    nginx)
        need nginx nginx
        [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || nginx -V 2>&1 |
            grep -q -- '--with-stream ' || install_package libnginx-mod-stream
        ;;
    socat) need socat socat ;;
    esac
done
build
run_rounds "$@"
print_table "$@"

mkdir -p "$(dirname "$CHART")"
print_costs "$@" | "$REPOSITORY/bench/plot.sh" "What it costs beside $1 (= 1; shorter is cheaper)" \
    "$(describe_machine)" >"$CHART"
note "drawn: $CHART"
