#!/usr/bin/env bash
# Runs all five roles of one server at once under mixed load, with one random fault every few seconds,
# and then asserts that nothing has grown and nothing was harmed: memory and descriptors are flat, the
# sessions are those of the start, no session's code has panicked, the process is the same, and a
# reference load beside the faults has seen no error.
#
#   DURATION=600 EVERY=10 SEED=1 bench/soak.sh
#
# The same SEED draws the same faults in the same order. Exits 1 with what did not hold.
set -euo pipefail
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

DURATION=${DURATION:-600}
EVERY=${EVERY:-10}
SEED=${SEED:-$((RANDOM))}
# Before the first sample that counts: by then all tables and pools have the size that the load wants.
SETTLING=${SETTLING:-$((DURATION / 5 < 60 ? DURATION / 5 : 60))}
# Growth of resident memory that is taken for noise, in KiB.
SLACK=${SLACK:-2048}

need taskset util-linux
need curl curl
build
RANDOM=$SEED

TOKEN=0123456789abcdef0123456789abcdef
KEY=a-key-that-opens-nothing-but-this-soak
HOP_KEY=$(head -c 32 /dev/urandom | base64)
NODE_PORT=$(free_port)
TUNNEL_PORT=$(free_port)
declare -A BACKEND
for name in reference bulk connect chain access tunnel; do
    BACKEND[$name]=127.0.0.1:$(free_port)
done

host() { echo "{ host = \"127.0.0.1\", service = ${BACKEND[$1]##*:} }"; }

# write_config [EXTRA]: the configuration, with more behind it.
write_config() {
    cat >"$WORK/soak.toml.new" <<CONFIG
[limits]
handshake_timeout = "3s"
drain_timeout = "5s"
[admin]
listen = ["127.0.0.1:0"]
[agent]
listen = ["127.0.0.1:0"]
[routes.soak.hosts]
reference = $(host reference)
bulk = $(host bulk)
connect = $(host connect)
[node]
listen = ["127.0.0.1:0"]
ports = "$NODE_PORT-$((NODE_PORT + 499))"
lease = "10s"
[chain]
listen = ["127.0.0.1:0"]
key = "$HOP_KEY"
allow = ["${BACKEND[chain]}"]
[[chain.access]]
name = "soak"
listen = "127.0.0.1:0"
via = []
to = "${BACKEND[access]}"
[tunnel]
listen = ["127.0.0.1:0"]
ports = "$TUNNEL_PORT-$((TUNNEL_PORT + 9))"
token = "$TOKEN"
[gateway]
clients = ["127.0.0.1:0"]
servers = ["127.0.0.1:0"]
auth_key = "$KEY"
${1:-}
CONFIG
    mv "$WORK/soak.toml.new" "$WORK/soak.toml"
}

write_config
mkdir "$WORK/run"
start_process "$WORK/server.log" "$TOWPATH" serve --config "$WORK/soak.toml" --workers 2 --log warn \
    --data-dir "$WORK/run/data" --address-file "$WORK/run/addresses"
SERVER=$STARTED_PID
taskset -cp "0-$(($(nproc) - 1))" "$SERVER" >/dev/null
for _ in $(seq 100); do
    ADMIN=$(address_in "$WORK/run/addresses" admin)
    [ -z "$ADMIN" ] || break
    sleep 0.05
done
[ -n "$ADMIN" ] || { cat "$WORK/server.log" >&2 && fail "towpath did not begin to listen"; }
at() { address_in "$WORK/run/addresses" "$1"; }

# start_expose: the tunnel's client; its identity and so its port stay.
start_expose() {
    : >"$WORK/public"
    TOWPATH_TOKEN=$TOKEN "$TOWPATH" expose --server "$(at tunnel)" --identity "$WORK/expose.id" \
        "${BACKEND[tunnel]}" >"$WORK/public" 2>>"$WORK/expose.log" &
    EXPOSE=$!
    STARTED+=("$EXPOSE")
}
start_expose
for _ in $(seq 100); do
    PUBLIC=$(head -n 1 "$WORK/public")
    [ -z "$PUBLIC" ] || break
    sleep 0.05
done
[ -n "$PUBLIC" ] || { cat "$WORK/expose.log" >&2 && fail "towpath expose has no public address"; }

# The store's cache grows to its bound with what is stored: it is filled first, so that what grows
# later is nobody's cache.
note "filling the store's cache"
"$LOAD" store update --target "$(at agent)" --conns 16 --keys 20000 --size 1024 --seconds 15 --warmup 0 \
    >"$WORK/load.fill"

descriptors() { find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l; }
resident() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$1/status"; }
sessions() { curl -s -m 5 "http://$ADMIN/status" | grep -o '"sessions":[0-9]*' | head -n 1 | cut -d: -f2; }
# metric NAME: of all cores together; nothing where there is none of that name.
metric() {
    curl -s -m 5 "http://$ADMIN/metrics" |
        awk -v name="$1" '$1 == name || index($1, name "{") == 1 { sum += $2; told = 1 } END { if (told) print sum }'
}

sleep 1
FIRST_SESSIONS=$(sessions)
FIRST_DESCRIPTORS=$(descriptors "$SERVER")

# again NAME COMMAND...: one load after the other until the end; what each says is kept.
again() {
    local name=$1
    shift
    while ! [ -e "$WORK/end" ]; do
        { "$@" --seconds 4 --warmup 0.2 >>"$WORK/load.$name" 2>>"$WORK/load.$name.error"; } 2>/dev/null ||
            { echo "failed=1" >>"$WORK/load.$name" && sleep 0.2; }
    done
}

route() { again "$1" "$LOAD" "$2" --target "$(at agent)" --backend "${BACKEND[$1]}" --route "soak:$1" "${@:3}"; }
route reference pingpong --conns 4 --size 1024 &
LOADS=("$!")
route bulk bulk --conns 2 &
LOADS+=("$!")
route connect connect --conns 4 --size 1024 &
LOADS+=("$!")
again store "$LOAD" store mixed --target "$(at agent)" --conns 2 --keys 1000 &
LOADS+=("$!")
again chain "$LOAD" chain pingpong --target "$(at chain)" --hop-key "$HOP_KEY" --backend "${BACKEND[chain]}" \
    --conns 8 &
LOADS+=("$!")
again access "$LOAD" connect --target "$(at soak)" --backend "${BACKEND[access]}" --conns 4 --size 16384 &
LOADS+=("$!")
again tunnel "$LOAD" connect --target "$PUBLIC" --backend "${BACKEND[tunnel]}" --conns 4 --size 1024 &
LOADS+=("$!")
again gateway "$LOAD" gateway pingpong --target "$(at gateway-clients)" --servers "$(at gateway-servers)" \
    --key "$KEY" --clients 4 --conns 4 &
LOADS+=("$!")
again node "$LOAD" node pingpong --target "$(at node)" --nodes 2 --peers 4 &
LOADS+=("$!")

# Faults. Each is over when its function returns, or ends by itself within a few seconds.

any_listener() {
    local names=(agent node chain soak tunnel gateway-clients gateway-servers)
    at "${names[RANDOM % ${#names[@]}]}"
}

# Random bytes, to one listener, from fifty connections.
fault_garbage() {
    local to
    to=$(any_listener)
    for _ in $(seq 50); do
        (exec 3<>"/dev/tcp/${to/://}" && head -c 65536 /dev/urandom >&3) 2>/dev/null || true
    done
}

# Two hundred that say nothing, until the handshake timeout has closed them.
fault_silence() {
    local to
    to=$(any_listener)
    timeout 5 bash -c 'for _ in $(seq 200); do exec {one}<>"/dev/tcp/'"${to/://}"'"; done; sleep 5' \
        2>/dev/null || true
}

# The tunnel's client dies and comes back, or is frozen for a while.
fault_expose_dies() {
    kill -9 "$EXPOSE"
    wait "$EXPOSE" 2>/dev/null || true
    start_expose
}
fault_expose_frozen() {
    kill -STOP "$EXPOSE"
    sleep 3
    kill -CONT "$EXPOSE"
}

# A load of the named kind dies with all its connections, its backend among them.
fault_load_dies() {
    local kinds=(bulk connect store chain access gateway node) pattern pid
    pattern="$WORK/load.${kinds[RANDOM % ${#kinds[@]}]}"
    for pid in $(pgrep -P "$(IFS=,; echo "${LOADS[*]}")" -x load || true); do
        if [ "$(readlink "/proc/$pid/fd/1")" = "$pattern" ]; then
            kill -9 "$pid"
        fi
    done
}

# The configuration is read again: with a route more, as it was, and with a mistake in it.
fault_reload() {
    write_config "[routes.more.hosts]
default = { host = \"127.0.0.1\", service = 9 }"
    kill -HUP "$SERVER"
    sleep 1
    write_config
    kill -HUP "$SERVER"
}
fault_broken_reload() {
    write_config "[routes.more"
    kill -HUP "$SERVER"
    sleep 1
    write_config
}

# An operator ends a session of the tunnel's or the chain's visitors.
fault_kick() {
    local id
    id=$(curl -s -m 5 "http://$ADMIN/sessions?role=chain" | grep -o '"id":"[^"]*"' | head -n 1 | cut -d'"' -f4)
    [ -z "$id" ] || "$TOWPATH" kick "$id" --admin "$ADMIN" >/dev/null 2>&1 || true
}

# Somebody asks the admin address for nonsense.
fault_admin() {
    head -c 1000000 /dev/zero |
        curl -s -m 2 -o /dev/null -X POST --data-binary @- "http://$ADMIN/reload" || true
    curl -s -m 5 -o /dev/null "http://$ADMIN/../../etc/passwd" || true
    (exec 3<>"/dev/tcp/${ADMIN/://}" && head -c 200000 /dev/zero >&3) 2>/dev/null || true
}

FAULTS=(garbage silence expose_dies expose_frozen load_dies reload broken_reload kick admin)

# sample: one line of seconds, KiB and descriptors.
BEGUN=$SECONDS
sample() { echo "$((SECONDS - BEGUN)) $(resident "$SERVER") $(descriptors "$SERVER")" >>"$WORK/samples"; }

note "seed $SEED, $DURATION s, a fault every $EVERY s"
NEXT=$EVERY
while [ $((SECONDS - BEGUN)) -lt "$DURATION" ]; do
    kill -0 "$SERVER" 2>/dev/null || { tail -n 20 "$WORK/server.log" >&2 && fail "the server has ended"; }
    sample
    if [ $((SECONDS - BEGUN)) -ge "$NEXT" ]; then
        fault=${FAULTS[RANDOM % ${#FAULTS[@]}]}
        note "$((SECONDS - BEGUN)) s: $fault"
        "fault_$fault"
        NEXT=$((NEXT + EVERY))
    fi
    sleep 1
done
touch "$WORK/end"
wait "${LOADS[@]}" 2>/dev/null || true

# What was begun ends: the sessions and descriptors of the start are left.
for _ in $(seq 60); do
    LAST_SESSIONS=$(sessions)
    LAST_DESCRIPTORS=$(descriptors "$SERVER")
    [ "$LAST_SESSIONS" -gt "$FIRST_SESSIONS" ] || [ "$LAST_DESCRIPTORS" -gt "$FIRST_DESCRIPTORS" ] || break
    sleep 1
done

BAD=0
# judge HOLDS WORDS: one line for each thing that was to hold.
judge() {
    if [ "$1" = 1 ]; then echo "ok: $2"; else echo "FAILED: $2" && BAD=1; fi
}

# part FROM TO: the median of resident memory over a part of the time that counts.
part() {
    awk -v from="$1" -v to="$2" '$1 >= from && $1 < to { print $2 }' "$WORK/samples" | sort -n |
        awk '{ all[NR] = $1 } END { print NR ? all[int((NR + 1) / 2)] : 0 }'
}
THIRD=$(((DURATION - SETTLING) / 3))
EARLY=$(part "$SETTLING" $((SETTLING + THIRD)))
LATE=$(part $((DURATION - THIRD)) $((DURATION + 1)))
ERRORS=$(awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^(errors|failed)=/) { split($i, a, "="); sum += a[2] } }
    END { print sum + 0 }' "$WORK/load.reference")
RUNS=$(grep -c 'mode=' "$WORK/load.reference" || true)
PANICS=$(metric towpath_panicked_total)

judge "$((LATE <= EARLY + SLACK))" "resident memory: $EARLY KiB in the first third, $LATE in the last"
judge "$((LAST_DESCRIPTORS <= FIRST_DESCRIPTORS))" "descriptors: $FIRST_DESCRIPTORS before, $LAST_DESCRIPTORS behind"
judge "$((LAST_SESSIONS <= FIRST_SESSIONS))" "sessions: $FIRST_SESSIONS before, $LAST_SESSIONS behind"
judge "$((${PANICS:-1} == 0))" "sessions that panicked: ${PANICS:-not told}"
judge "$((ERRORS == 0 && RUNS > 0))" "reference load: $RUNS runs, $ERRORS errors"
for name in bulk connect store chain access tunnel gateway node; do
    DONE=$(grep -c 'mode=.*errors=0' "$WORK/load.$name" || true)
    judge "$((DONE > 0))" "$name load: $DONE runs without an error"
done
if [ "$BAD" = 1 ]; then
    echo "seconds, KiB of resident memory and descriptors, forty times over the run:"
    awk -v every=$(($(wc -l <"$WORK/samples") / 40 + 1)) 'NR % every == 1 || every == 1' "$WORK/samples"
fi
exit "$BAD"
