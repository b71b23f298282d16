#!/usr/bin/env bash
# What the bench scripts share: starting servers pinned to one core, running the load program on
# another, keeping every result, and working out medians. Sourced, never run by itself.
#
# A *subject* is a server under test: its address is in ADDRESS[name], its process ids, separated
# by commas, in PIDS[name]. A *measure* is a load and the figure of it that counts.
set -euo pipefail

ROUNDS=${ROUNDS:-3}
WINDOW=${WINDOW:-2}
WARMUP=${WARMUP:-0.5}
SERVER_CPU=${SERVER_CPU:-0}
LOAD_CPU=${LOAD_CPU:-$(($(nproc) > 1 ? 1 : 0))}

declare -A ADDRESS PIDS
declare -a STARTED=()
REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d)
RESULTS=$WORK/results
touch "$RESULTS"
ulimit -n "$(ulimit -Hn)"

# Ends the processes that this script started, by id, and waits until they are gone.
stop_all() {
    local pid
    for pid in "${STARTED[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${STARTED[@]}"; do
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    STARTED=()
}

clean_up() {
    stop_all
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

note() { echo "$*" >&2; }

# install_package PACKAGE: from Debian's archive.
install_package() {
    note "installing $1"
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >&2
}

# need COMMAND PACKAGE: installs a Debian package when its command is missing.
need() {
    command -v "$1" >/dev/null && return
    install_package "$2"
    command -v "$1" >/dev/null || fail "package $2 has no command $1"
}

# Builds what is measured and sets TOWPATH and LOAD, unless the caller has set both.
build() {
    [ -z "${TOWPATH:-}" ] || [ -z "${LOAD:-}" ] || return 0
    (cd "$REPOSITORY" && cargo build --release --quiet --bin towpath --example load) ||
        fail "the build failed"
    local target=${CARGO_TARGET_DIR:-$REPOSITORY/target}
    TOWPATH=$target/release/towpath
    LOAD=$target/release/examples/load
}

# Prints a port of the loopback address that nobody listens on, below the range that the kernel
# gives out by itself, and different in each call.
free_port() {
    local port
    for _ in $(seq 200); do
        port=$((15000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && ! [ -e "$WORK/port.$port" ]; then
            touch "$WORK/port.$port"
            echo "$port"
            return
        fi
    done
    fail "no free port found"
}

# start_process LOG COMMAND...: starts it pinned to the servers' core; its id is in STARTED_PID.
start_process() {
    local log=$1
    shift
    taskset -c "$SERVER_CPU" "$@" >"$log" 2>&1 &
    STARTED_PID=$!
    STARTED+=("$STARTED_PID")
}

# await_listener NAME PORT LOG: waits until somebody accepts there.
await_listener() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
        sleep 0.05
    done
    cat "$3" >&2
    fail "$1 does not listen on port $2"
}

# start_towpath NAME CONFIG KEY [FLAGS...]: one worker, a fresh data directory. KEY is the address
# file's entry that becomes the subject's address: a role, or the name of an access listener.
start_towpath() {
    local name=$1 config=$2 key=$3 home=$WORK/$1.home
    shift 3
    rm -rf "$home"
    mkdir "$home"
    start_process "$WORK/$name.log" "$TOWPATH" serve --config "$config" --workers 1 --log warn \
        --data-dir "$home/data" --address-file "$home/addresses" "$@"
    PIDS[$name]=$STARTED_PID
    for _ in $(seq 100); do
        ADDRESS[$name]=$(address_in "$home/addresses" "$key")
        [ -n "${ADDRESS[$name]}" ] && return
        kill -0 "$STARTED_PID" 2>/dev/null || break
        sleep 0.05
    done
    cat "$WORK/$name.log" >&2
    fail "towpath did not begin to listen"
}

# address_in FILE KEY: the first address of an entry, or nothing yet.
address_in() {
    [ -e "$1" ] || return 0
    tr -d ' \n' <"$1" | sed -n "s/.*\"$2\":\[\"\([^\"]*\)\".*/\1/p"
}

# start_haproxy NAME BACKEND_PORT [GLOBAL_LINES] [LISTEN_LINES]: TCP mode, one thread, no log. With
# splicing it wants descriptors for pipes too, so a connection is reckoned as three.
start_haproxy() {
    local name=$1 port config=$WORK/$1.cfg
    port=$(free_port)
    cat >"$config" <<CONFIG
global
    nbthread 1
    maxconn $((($(ulimit -n) - 200) / 3))
    ${3:-}
defaults
    mode tcp
    timeout connect 5s
    timeout client 600s
    timeout server 600s
listen bench
    bind 127.0.0.1:$port backlog 4096
    ${4:-}
    server backend 127.0.0.1:$2
CONFIG
    start_process "$WORK/$name.log" haproxy -db -f "$config"
    PIDS[$name]=$STARTED_PID
    ADDRESS[$name]=127.0.0.1:$port
    await_listener "$name" "$port" "$WORK/$name.log"
}

# start_nginx NAME BACKEND_PORT: the stream module, one worker, no log.
start_nginx() {
    local name=$1 port module=/usr/lib/nginx/modules/ngx_stream_module.so config=$WORK/$1.conf
    port=$(free_port)
    [ ! -e "$module" ] || echo "load_module $module;" >"$config"
    cat >>"$config" <<CONFIG
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $WORK/$name.pid;
error_log stderr crit;
events { worker_connections $(($(ulimit -n) - 100)); }
stream {
    server {
        listen 127.0.0.1:$port backlog=4096;
        proxy_pass 127.0.0.1:$2;
        proxy_timeout 600s;
    }
}
CONFIG
    start_process "$WORK/$name.log" nginx -c "$config" -e stderr
    PIDS[$name]=$STARTED_PID
    ADDRESS[$name]=127.0.0.1:$port
    await_listener "$name" "$port" "$WORK/$name.log"
}

# start_socat NAME BACKEND_PORT: a process for each connection.
start_socat() {
    local name=$1 port
    port=$(free_port)
    start_process "$WORK/$name.log" socat -b 65536 \
        "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr,backlog=1024,nodelay" \
        "TCP:127.0.0.1:$2,nodelay"
    PIDS[$name]=$STARTED_PID
    ADDRESS[$name]=127.0.0.1:$port
    await_listener "$name" "$port" "$WORK/$name.log"
}

# measure NAME LABEL MODE...: one run of the load program against a subject; its figures are kept
# under LABEL. The words after LABEL are the load program's own.
measure() {
    local name=$1 label=$2 line
    shift 2
    note "  $name: $label"
    line=$(timeout 90 taskset -c "$LOAD_CPU" "$LOAD" "$@" --target "${ADDRESS[$name]}" \
        --pid "${PIDS[$name]}" --seconds "$WINDOW" --warmup "$WARMUP") ||
        fail "$name: $label: the load program failed"
    local pair
    for pair in $line; do
        printf '%s\t%s\t%s\t%s\n' "$name" "$label" "${pair%%=*}" "${pair#*=}" >>"$RESULTS"
    done
    case $line in
    *errors=0*) ;;
    *) note "  $name: $label: connections failed: ${line##* }" ;;
    esac
}

# figures NAME LABEL FIELD: every round's value, sorted.
figures() {
    awk -F '\t' -v n="$1" -v l="$2" -v f="$3" '$1 == n && $2 == l && $3 == f { print $4 }' \
        "$RESULTS" | sort -g
}

median() {
    figures "$@" | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

# cell NAME LABEL FIELD: `median (min - max)`, or a dash.
cell() {
    figures "$@" | awk '
        function short(x) { return sprintf(x < 10 ? "%.3f" : x < 100 ? "%.1f" : "%.0f", x) }
        { v[NR] = $1 }
        END {
            if (!NR) print "-"
            else printf "%s (%s - %s)\n", short(v[int((NR + 1) / 2)]), short(v[1]), short(v[NR])
        }'
}

# ratio A B: A / B with two digits, or a dash.
ratio() {
    awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (a && b) printf "%.2f\n", a / b; else print "-" }'
}

# What the figures were made on; they mean little elsewhere.
describe_machine() {
    local model
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    echo "Medians (min - max) of $ROUNDS rounds of $WINDOW s, subjects interleaved; server on core" \
        "$SERVER_CPU, load on core $LOAD_CPU; $(nproc) x ${model:-unknown processor}," \
        "Linux $(uname -r)."
}
