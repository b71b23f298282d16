#!/usr/bin/env bash
# Measures towpath's plain relay by itself: every load of bench/compare.sh, one table.
#
#   ROUNDS=3 WINDOW=2 bench/relay.sh
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=bench/plain.sh
. "$(dirname "$0")/plain.sh"

need taskset util-linux
build
run_rounds towpath
print_table towpath
