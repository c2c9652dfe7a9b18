"""Peer side of verifier.sh: makes the sample, and times Math-Verify on it in CPU seconds of one thread."""
import glob
import json
import os
import random
import sys
import time


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sample(data, count, out):
    items = {r["id"]: r for r in rows(os.path.join(data, "mathv", "test.jsonl"))}
    pairs = []
    for path in sorted(glob.glob(os.path.join(data, "mathv", "outputs", "*.jsonl"))):
        for r in rows(path):
            item = items[r["id"]]
            pairs.append({"gold": item["answer"], "options": item["options"], "response": str(r["response"]), "correct": bool(r["correct"])})
    with open(out, "w", encoding="utf-8") as f:
        for pair in random.Random(0).sample(pairs, min(count, len(pairs))):
            f.write(json.dumps(pair) + "\n")


def run(path):
    import logging

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    logging.disable(logging.WARNING)
    plain = [LatexExtractionConfig(), ExprExtractionConfig()]
    letters = [*plain, StringExtractionConfig(strings=("A", "B", "C", "D", "E"))]
    verify(parse("$1$"), parse("$1$"))  # builds the grammar before the clock
    pairs = rows(path)
    agree, cpu, wall = 0, time.process_time(), time.perf_counter()
    for p in pairs:
        config = letters if p["options"] else plain
        agree += bool(verify(parse(f"${p['gold']}$", config), parse(p["response"], config))) == p["correct"]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"math-verify pairs={len(pairs)} cpu={cpu:.2f}s wall={wall:.2f}s verdicts/cpu-s={len(pairs) / cpu:.0f} agree={agree / len(pairs):.2%}")


if __name__ == "__main__":
    sample(sys.argv[2], int(sys.argv[3]), sys.argv[4]) if sys.argv[1] == "sample" else run(sys.argv[2])
