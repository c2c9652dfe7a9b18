#!/bin/bash
# Alternates our training step and greedy generation of a tiny Qwen2.5-VL with transformers' on the same machine.
#   VLM_CHECKPOINT=dir [VLM_PEER=path/to/hf_vlm_step.py VLM_PYTHON=python QUIET="prefix"] bench/vlm.sh [rounds]
# The checkpoint is the peer's own model, saved (10M parameters: hidden 256, 6 + 4 layers, 448 x 448 pictures of 256 tokens). VLM_PEER takes
# `train|generate [--steps N] [--warmup N]` and prints one line; QUIET is a command prefix that raises priority. Without VLM_PEER only our
# own figures are printed.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
cargo build --release -q -p ocelli-model --example vlm_speed
ours=target/release/examples/vlm_speed
for _ in $(seq "$rounds"); do
  for mode in train generate; do
    ${QUIET:-} $ours $mode "$VLM_CHECKPOINT" --steps 3 --warmup 1
    if [ -n "${VLM_PEER:-}" ]; then
      ${QUIET:-} "${VLM_PYTHON:-python3}" "$VLM_PEER" $mode --steps 3 --warmup 1 2>&1 | tail -1
    fi
  done
done
