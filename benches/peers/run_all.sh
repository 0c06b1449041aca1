#!/usr/bin/env bash
# Every timed run in three bounded groups, most useful first: run_all.sh [1|2|3 ...] (default all).
# MEASURE_LOCK=<file>: each group runs under one flock of it. NICE=-5: priority of server and client (root).
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); export PEERS_HOME=${PEERS_HOME:-$HERE/.peers} NICE=${NICE:-0}
R=$HERE/results; mkdir -p "$R"; cd "$PEERS_HOME"
if [ "${IN_GROUP:-}" = "" ]; then
  [ -e onnx/model.onnx ] || ml/bin/python "$HERE/export_onnx.py"
  for g in "${@:-1 2 3}"; do for k in $g; do
    if [ -n "${MEASURE_LOCK:-}" ]; then IN_GROUP=$k flock "$MEASURE_LOCK" env -u MEASURE_LOCK bash "$0"
    else IN_GROUP=$k bash "$0"; fi
  done; done; exit
fi
lp() { triton/bin/python "$HERE/load_peers.py" "$@" --nice "$NICE" --secs 2 --extra 0; }
ml() { nice -n "$NICE" ml/bin/python "$HERE/bench_minilm.py" "$1" 3 2 >"$R/minilm-$1.json" 2>"$R/minilm-$1.err" && rm -f "$R/minilm-$1.err"; cat "$R/minilm-$1.json"; }
[ "$NICE" != 0 ] && echo "$NICE" >/proc/self/autogroup 2>/dev/null  # our own session only; see load_peers.py prio()
echo "### group $IN_GROUP $(date +%T) load $(cut -d' ' -f1-3 /proc/loadavg)"
case $IN_GROUP in
1) lp orion triton-core orion-two; lp triton-c ray-v2 ray-grpc mosec-v2 triton-py; ml torch ;;
2) ml torch; ml onnx; nice -n "$NICE" ray/bin/python "$HERE/bench_ray_core.py" 3 >"$R/ray-core.json" 2>/dev/null; cat "$R/ray-core.json"
   lp ray-v2 ray-grpc triton-core triton-py mosec-v2; lp ray-minilm-32 --conc 1,32; lp pytriton-batch triton-c-batch triton-c-ens litserve bentoml ;;
3) lp triton-py-ens ray-raw mosec-batch; lp ray-minilm-128 --conc 1,32; ml onnx-int8
   lp pytriton-nobatch ray-batch mosec-raw litserve-batch ;;
esac
[ "$NICE" != 0 ] && echo 0 >/proc/self/autogroup 2>/dev/null
echo "### end $IN_GROUP $(date +%T) load $(cut -d' ' -f1-3 /proc/loadavg)"
