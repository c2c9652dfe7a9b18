#!/usr/bin/env python3
"""Training steps and decoding of ocelli-tensor beside PyTorch's, in turn, and how our step grows.

    cargo build --release -p ocelli-tensor --examples
    TORCH_STEP=torch_step.py TORCH_PYTHON=python bench/compute.py pairs LOG N [CASE...]    # N pairs of each case, appended to LOG
    bench/compute.py growth LOG                                                            # our step over length and shared prefix
    bench/compute.py summary LOG                                                           # medians and ranges of all that LOG holds

A case is MODE:CONFIG:TYPE:STEPS, e.g. train:B:f32:3 (steps after three of warm-up). TORCH_STEP takes `train|decode A|B [--bf16] [--steps N]`
and prints one line with `step X ms` or `X tok/s`, and `RSS X MiB`. Both run on two threads.
"""
import json
import os
import re
import statistics
import subprocess
import sys

OURS = "target/release/examples/step_bench"
CASES = ["train:A:f32:5", "train:B:f32:2", "decode:A:f32:1", "decode:B:f32:1"]


def ours(*args):
    out = subprocess.run([OURS, *args], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def torch(*args):
    command = [os.environ.get("TORCH_PYTHON", "python3"), os.environ["TORCH_STEP"], *args]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    line = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    found = re.search(r"(?:step|total) ([\d.]+) ms", line)
    return {"ms": float(found[1]), "rss_mib": float(re.search(r"RSS (\d+)", line)[1])}


def pairs(log, n, cases):
    for _ in range(n):
        for case in cases:
            mode, config, dtype, steps = case.split(":")
            args = [mode, config] + (["--bf16"] if dtype == "bf16" else [])
            counted = args + (["--steps", steps] if mode == "train" else [])
            a = ours(*counted)
            b = torch(*args, "--steps", steps)
            record = {"case": f"{mode} {config} {dtype}", "ours_ms": a["ms"], "torch_ms": b["ms"], "ours_mib": a["rss_mib"], "torch_mib": b["rss_mib"]}
            print(json.dumps(record), flush=True)
            with open(log, "a") as out:
                out.write(json.dumps(record) + "\n")


def growth(log):
    runs = [("T", t, ["--batch", "1", "--T", str(t)]) for t in (512, 1024, 2048, 4096, 8192)]
    runs += [("G", g, ["--prefix", str(g)]) for g in (1, 2, 4, 8, 16)]
    for kind, x, args in runs:
        a = ours("train", "A", *args, "--steps", "3")
        record = {"growth": kind, "x": x, "rows": a["rows"], "ms": a["ms"], "rss_mib": a["rss_mib"]}
        print(json.dumps(record), flush=True)
        with open(log, "a") as out:
            out.write(json.dumps(record) + "\n")


def summary(log):
    records = [json.loads(line) for line in open(log)]
    print("| case | pairs | ours ms | PyTorch ms | PyTorch / ours, median (range) | memory ours / PyTorch MiB | ratio |\n|---|---|---|---|---|---|---|")
    for case in dict.fromkeys(r["case"] for r in records if "case" in r):
        rows = [r for r in records if r.get("case") == case]
        mid = lambda key: statistics.median(r[key] for r in rows)
        ratios = sorted(r["torch_ms"] / r["ours_ms"] for r in rows)
        print(
            f"| {case} | {len(rows)} | {mid('ours_ms'):.0f} | {mid('torch_ms'):.0f} | **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
            f"| {mid('ours_mib'):.0f} / {mid('torch_mib'):.0f} | {mid('ours_mib') / mid('torch_mib'):.2f} |"
        )
    print("\n| | rows | ms | ms per row | MiB |\n|---|---|---|---|---|")
    for kind, x in dict.fromkeys((r["growth"], r["x"]) for r in records if "growth" in r):
        rows = [r for r in records if (r.get("growth"), r.get("x")) == (kind, x)]
        ms = statistics.median(r["ms"] for r in rows)
        print(f"| {kind} = {x} | {rows[0]['rows']} | {ms:.0f} | {ms / rows[0]['rows']:.2f} | {rows[0]['rss_mib']:.0f} |")


match sys.argv[1:]:
    case ["pairs", log, n, *cases]:
        pairs(log, int(n), cases or CASES)
    case ["growth", log]:
        growth(log)
    case ["summary", log]:
        summary(log)
    case _:
        sys.exit(__doc__)
