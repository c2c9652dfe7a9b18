#!/bin/bash
# Verdicts per CPU second of Math-Verify and of ocelli-reward on the same MATH-Vision pairs, in turn.
#
#   OCELLI_DATA=... PEER_PYTHON=/path/to/python bench/verifier.sh [ROUNDS] [PAIRS]
#
# PEER_PYTHON: a Python with math-verify 0.9.0. Both get the same random sample of stored outputs (seed 0), the peer
# the letters A to E as strings where an item has options, ours the options' texts. One process, one thread each. Build the
# example first (`cargo build --release -p ocelli-reward --example verify_speed`) where nothing may run beside the measurement.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} pairs=${2:-2000}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
[ -x target/release/examples/verify_speed ] || cargo build --quiet --release -p ocelli-reward --example verify_speed
"$PEER_PYTHON" bench/verifier_peer.py sample "$OCELLI_DATA" "$pairs" "$work/pairs.jsonl"
for _ in $(seq "$rounds"); do
  "$PEER_PYTHON" bench/verifier_peer.py run "$work/pairs.jsonl"
  target/release/examples/verify_speed "$work/pairs.jsonl" 20
done
