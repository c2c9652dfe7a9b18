#!/bin/bash
# How a training step and a rollout grow with the size of the model, of the picture, of the group, and with the number of turns.
#   [QUIET="prefix"] bench/growth.sh [model|picture|group|turns ..]
# One line per point; every point is one process, two steps after a warm-up.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- model picture group turns
ours=${OURS:-target/release/examples/train_speed}
[ -x "$ours" ] || cargo build --release -q -p ocelli-train --example train_speed
point() {
  echo -n "$1: "
  shift
  ${QUIET:-} "$ours" "$@" --steps "${STEPS:-2}" --warmup 1
}
base="--prompts 2 --new 32"
for what in "$@"; do
  case $what in
    model) for m in tiny-0.5m tiny-2m tiny-8m tiny-30m; do point "model $m" grpo $m $base --group 8 --side 96; done ;;
    picture) for s in 64 128 256 512; do point "picture $s" grpo tiny-2m $base --group 8 --side $s; done ;;
    group) for g in 1 4 16 64; do point "group $g" grpo tiny-2m $base --group $g --side 128; done ;;
    turns) for t in 1 2 4 8; do point "turns $t" grpo tiny-2m $base --group 8 --side 128 --turns $t; done ;;
  esac
done
