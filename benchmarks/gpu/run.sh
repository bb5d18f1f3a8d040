#!/usr/bin/env bash
# Run the checks that need a GPU; every part writes its results to $OUT as soon as it has them.
#
#   benchmarks/gpu/run.sh [tests] [speed] [animals]     (default: all three, in this order)
#
# Environment, all optional:
#   OUT      folder that receives the results            (benchmarks/results)
#   DATA     folder that `make gpu-data` made             (gpu_data)
#   RUNS     folder of the run folders                    (runs/gpu)
#   PYTHON   interpreter with torch for CUDA              (python3)
#   SECONDS_LEFT  time for `animals`                      (500)
#   JOBS     experiments at a time                        (6)
#   WEIGHTS  most weights files to keep                   (4)
#   MPS      0: do not start NVIDIA's multi-process service
set -u
cd "$(dirname "$0")/../.." || exit
OUT=${OUT:-benchmarks/results}
DATA=${DATA:-gpu_data}
RUNS=${RUNS:-runs/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" "$RUNS/site/tensorboard"
# TensorBoard is optional, and every process would take seconds to import it.
echo 'raise ImportError("switched off by benchmarks/gpu/run.sh")' >"$RUNS/site/tensorboard/__init__.py"
export PYTHONPATH="$PWD/src:$(realpath -m "$RUNS")/site:$(realpath -m "$DATA")/site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

tests() {
  timeout 150 "$PYTHON" -m pytest tests/gpu -q -n 6 --dist load --durations 8 -W default \
    -p no:cacheprovider 2>&1 | tee "$OUT/gpu_tests.txt"
}

speed() {
  timeout 130 "$PYTHON" benchmarks/gpu/speed.py --root "$DATA/voc" --seconds 110 --json "$OUT/gpu_speed.json"
}

# Creates a context and nothing else, which takes a fraction of the time of importing torch.
cuda_works() {
  timeout 20 "$PYTHON" -c '
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
device, context = ctypes.c_int(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0' 2>/dev/null
}

# With the service, kernels of several processes run at the same time; without it, in turns.
start_mps() {
  [ "${MPS:-1}" = 1 ] && command -v nvidia-cuda-mps-control >/dev/null || return
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
  CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  if nvidia-cuda-mps-control -d && cuda_works; then
    echo "MPS: on"
    trap stop_mps EXIT
  else
    echo "MPS: does not work here; off"
    stop_mps
  fi
}

stop_mps() {
  echo quit | timeout 10 nvidia-cuda-mps-control >/dev/null 2>&1
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

animals() {
  start_mps
  "$PYTHON" benchmarks/gpu/animals.py benchmarks/gpu/queue.yaml --data "$DATA" --runs "$RUNS" \
    --out "$OUT/gpu_animals.jsonl" --weights-dir "$OUT" --max-weights "${WEIGHTS:-4}" --jobs "${JOBS:-6}" --seconds "${SECONDS_LEFT:-500}" \
    2>&1 | tee "$OUT/gpu_animals.txt"
}

for part in "${@:-tests speed animals}"; do
  for name in $part; do
    case $name in
      tests | speed | animals) "$name" ;;
      *) echo "unknown part '$name': tests, speed or animals" >&2; exit 2 ;;
    esac
  done
done
