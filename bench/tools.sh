#!/bin/bash
# Our tool server and a FastAPI worker in turn, under one client (crates/ocelli-tools/examples/load.rs).
#   PEER=path/to/fastapi_tools.py PEER_PYTHON=python bench/tools.sh PICTURES [tool] [peer variants]
# PICTURES holds 448x448.png and 1600x1200.png. PEER is a worker with `crop|hline --port N [--threads | --workers N]` and the route
# /worker_generate; without it only our figures are printed. One line per run on standard output.
set -eu
pictures=$(realpath "$1")
tools=${2:-crop hline}
variants=${3:---workers_2 --threads}
cd "$(dirname "$0")/.."
cargo build --release -q -p ocelli-tools --example load
load=$PWD/target/release/examples/load
stop() { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
trap stop EXIT
up() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.1; done; }
for tool in $tools; do
  for size in 448x448 1600x1200; do
    echo "== $tool $size"
    "$load" serve 2 127.0.0.1:7070 >/dev/null & server=$!
    up 7070
    for how in fresh same hash hash-hash; do
      for clients in 1 8 64; do
        "$load" http://127.0.0.1:7070/v1/call "$pictures/$size.png" "$tool" $how $clients "${CALLS:-2000}"
      done
    done
    stop
    [ -n "${PEER:-}" ] || continue
    for variant in $variants; do
      "${PEER_PYTHON:-python3}" "$PEER" "$tool" --port 7171 ${variant//_/ } & server=$!
      up 7171
      echo "-- worker $variant"
      for clients in 1 8 64; do
        "$load" http://127.0.0.1:7171/worker_generate "$pictures/$size.png" "$tool" worker $clients "${PEER_CALLS:-100}"
      done
      stop
    done
  done
done
