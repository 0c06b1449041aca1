#!/usr/bin/env bash
# Orion on fixed ports of this folder's own: serve_orion.sh one (`orion up`) or two (scheduler and worker).
# HTTP 18600, gRPC 18601, metrics 18602, session 18603, loopback only. ORION_BIN picks the binary.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); P=${PEERS_HOME:-$HERE/.peers}
ORION=${ORION_BIN:-${CARGO_TARGET_DIR:-$HERE/../../target}/release/orion}
LISTEN=(--http 127.0.0.1:18600 --grpc 127.0.0.1:18601 --metrics 127.0.0.1:18602 --session 127.0.0.1:18603)
# The folder is kept, so that the machine is measured once and not while it is under load.
DATA=$P/orion-data; mkdir -p "$DATA"
if [ "${1:-one}" = one ]; then
  exec "$ORION" up "${LISTEN[@]}" --data-dir "$DATA/up"
fi
"$ORION" scheduler "${LISTEN[@]}" --data-dir "$DATA/scheduler" & SCHEDULER=$!
"$ORION" worker --join 127.0.0.1:18603 --name peer --data-dir "$DATA/worker" & WORKER=$!
trap 'kill -TERM "$WORKER" "$SCHEDULER" 2>/dev/null || true; wait; exit 0' TERM INT
# Whichever ends first ends both: half a server must not be measured.
wait -n || true
kill -TERM "$WORKER" "$SCHEDULER" 2>/dev/null || true; wait; exit 1
