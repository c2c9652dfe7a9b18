#!/bin/bash
# Alternates our training step and decoding with PyTorch's on the same machine, and measures how a step grows.
#   TORCH_STEP=path/to/torch_step.py TORCH_PYTHON=python bench/compute.sh [rounds]
# TORCH_STEP takes `train|decode A|B [--bf16] [--steps N]` and prints one line; QUIET is a command prefix that raises priority (optional).
# Without TORCH_STEP only our own figures are printed. One line per run on standard output.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
cargo build --release -q -p ocelli-tensor --examples
ours=target/release/examples/step_bench
peer() {
  [ -n "${TORCH_STEP:-}" ] || return 0
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} ${QUIET:-} "${TORCH_PYTHON:-python3}" "$TORCH_STEP" "$@"
}
for _ in $(seq "$rounds"); do
  for mode in train decode; do
    for config in A B; do
      for dtype in "" --bf16; do
        ${QUIET:-} $ours $mode $config $dtype
        peer $mode $config $dtype
      done
    done
  done
done
for t in 512 1024 2048 4096 8192; do
  ${QUIET:-} $ours train A --batch 1 --T "$t" --steps 3
done
for g in 1 2 4 8 16; do
  ${QUIET:-} $ours train A --prefix "$g" --steps 3
done
${QUIET:-} target/release/examples/kernel_bench
