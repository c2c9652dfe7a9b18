#!/bin/bash
# Alternates our training steps with those of TRL and transformers on the same machine and the very same tiny Qwen2.5-VL.
#   VLM_CHECKPOINT=dir [PEERS=dir PEER_PYTHON=python QUIET="prefix"] bench/training.sh [rounds] [what ..]
# VLM_CHECKPOINT is the peers' own model, saved (10M parameters). PEERS holds their scripts: hf_vlm_step.py, trl_reward_step.py and
# trl_grpo.py, which print one line each; without it only our own figures are printed. QUIET is a command prefix that keeps other
# work away. what: sft, reward, grpo, with -bf16 behind it for bf16 and -apart for our step without anything shared.
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5}
shift || true
[ $# -gt 0 ] || set -- sft reward grpo
ours=${OURS:-target/release/examples/train_speed}
[ -x "$ours" ] || cargo build --release -q -p ocelli-train --example train_speed
peer() {
  [ -n "${PEERS:-}" ] || return 0
  (cd "$PEERS" && ${QUIET:-} "${PEER_PYTHON:-python3}" "$@" 2>&1 | grep -E "step|Error" | tail -1)
}
for _ in $(seq "$rounds"); do
  for what in "$@"; do
    half=; apart=
    case $what in *-bf16*) half=--bf16 ;; esac
    case $what in *-apart*) apart=--apart ;; esac
    steps="--steps ${STEPS:-2} --warmup 1"
    ${QUIET:-} "$ours" "${what%%-*}" "$VLM_CHECKPOINT" $half $apart $steps
    [ -z "$apart" ] || continue
    case $what in
      sft*) peer hf_vlm_step.py train $half $steps ;;
      reward*) peer trl_reward_step.py --share-image $half $steps ;;
      grpo*) peer trl_grpo.py $half $steps ;;
    esac
  done
done
