"""The evaluation engine beside inspect-ai and lmms-eval on one mock endpoint: wall time, CPU, memory, faults, kill and resume.

    python bench/eval-engine.py --ocelli target/release/ocelli --mock mock_openai.py [--mock-python PYTHON]
        [--inspect PYTHON inspect_engine.py] [--lmms PYTHON lmms_engine.py] [--rounds 3] [--items 1000] [--connections 64]

The mock waits 50 ms and answers by a fixed rule (857 of 1,000 are right). Every item has its own picture of 50 KB. Ours is measured as
a whole process, from start to written reports (JSON, Markdown, HTML); the peers as their scripts do: from the call of
their evaluation to its results, without imports and without making the items, but their peak memory includes imports.
Rounds alternate, so that a busy machine is busy for all. Ours runs twice a round: without pictures in its report, as inspect-ai with
--lean writes none into its log, and with the default of 24 MB of them.
"""
import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

DECLARATION = '''
name = "mock"
title = "Mock digits"
source = { url = "made by bench/eval-engine.py", licence = "none" }
[[data]]
format = "jsonl"
files = ["mock/items.jsonl"]
id = "id"
images = ["image"]
[fields]
question = "question"
answer = "answer"
[prompt]
slots = [{ pattern = "<image>", column = "image" }]
user = "<image>{{ question }}"
[sampling]
temperature = 0.0
max_tokens = 16
[[score]]
reference = "strict"
strict = { compare = "math" }
'''


def png(rng, side=129):
    """a noise picture of about 50 KB"""
    chunk = lambda kind, data: len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    rows = b"".join(b"\0" + rng.randbytes(3 * side) for _ in range(side))
    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def make_items(folder, count):
    os.makedirs(f"{folder}/mock/images")
    rng = random.Random(0)
    with open(f"{folder}/mock/items.jsonl", "w") as file:
        for i in range(count):
            with open(f"{folder}/mock/images/{i}.png", "wb") as picture:
                picture.write(png(rng))
            file.write(json.dumps(dict(id=i, question=f"Give the last digit of {i}", answer=i % 10, image=f"images/{i}.png")) + "\n")
    with open(f"{folder}/mock.toml", "w") as file:
        file.write(DECLARATION)


def get(url, data=None):
    return json.load(urllib.request.urlopen(urllib.request.Request(url, data=data)))


def measured(command, **kwargs):
    """wall seconds, CPU seconds, peak MiB of one process"""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed:\n{output}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output


class Mock:
    def __init__(self, args, port, faults):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([args.mock_python, args.mock, "--port", str(port), "--fault-rate", str(faults)])
        for _ in range(200):
            try:
                get(self.url + "/stats")
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("the mock endpoint did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def ours(args, folder, url, out, *flags):
    return [args.ocelli, "eval", f"{folder}/mock.toml", "--model", "fixed", "--endpoint", url + "/v1", "--data", folder, "--out", out,
            "--concurrency", str(args.connections), "--json", *(flags or ("--pictures", "0"))]


def peer(line):
    """wall, CPU and peak of a peer's own line"""
    return [float(re.search(rf"{key}=([\d.]+)", line).group(1)) for key in ("wall", "client_cpu", "peak_rss")]


def median(runs, at):
    values = sorted(run[at] for run in runs)
    return values[len(values) // 2]


def right(out):
    path = next(os.path.join(d, "report.json") for d, _, files in os.walk(out) if "report.json" in files)
    return round(json.load(open(path))["summary"]["strict"]["credit"])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ocelli", required=True)
    ap.add_argument("--mock", required=True)
    ap.add_argument("--mock-python", default=sys.executable)
    ap.add_argument("--inspect", nargs=2, metavar=("PYTHON", "SCRIPT"))
    ap.add_argument("--lmms", nargs=2, metavar=("PYTHON", "SCRIPT"))
    ap.add_argument("--items", type=int, default=1000)
    ap.add_argument("--connections", type=int, default=64)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--port", type=int, default=8971)
    args = ap.parse_args()
    ideal = args.items / args.connections * 0.05
    print(f"items {args.items}, connections {args.connections}, latency 50 ms: ideal wall {ideal:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        make_items(folder, args.items)
        with Mock(args, args.port, 0) as mock:
            runs = {"ocelli": [], "pictures": [], "inspect": [], "lmms": []}
            for n in range(args.rounds):
                get(mock.url + "/reset", b"")
                out = f"{folder}/out{n}"
                wall, cpu, rss, _ = measured(ours(args, folder, mock.url, out))
                stats = get(mock.url + "/stats")
                print(f"ocelli      wall={wall:.2f}s ({wall / ideal:.2f} x ideal) cpu={cpu:.2f}s peak={rss:.0f}MiB right={right(out)} "
                      f"requests={stats['requests']} answered={stats['answered']} max_in_flight={stats['max_in_flight']}", flush=True)
                peer_args = ["--url", mock.url, "--items", str(args.items), "--connections", str(args.connections)]
                runs["ocelli"].append((wall, cpu, rss))
                wall, cpu, rss, _ = measured(ours(args, folder, mock.url, f"{folder}/defaults{n}", "--pictures", "24"))
                print(f"  + pictures  wall={wall:.2f}s ({wall / ideal:.2f} x ideal) cpu={cpu:.2f}s peak={rss:.0f}MiB", flush=True)
                runs["pictures"].append((wall, cpu, rss))
                for name, program, extra in (("inspect", args.inspect, ["--lean"]), ("lmms", args.lmms, [])):
                    if program:
                        output = measured([*program, *peer_args, *extra])[3]
                        line = next(text for text in reversed(output.splitlines()) if "wall=" in text)
                        runs[name].append(peer(line))
                        print(line, flush=True)
            peers = [runs[name] for name in ("inspect", "lmms") if runs[name]]
            best = [min(median(r, i) for r in peers) for i in range(3)] if peers else [float("nan")] * 3
            for name in ("ocelli", "pictures"):
                us = [median(runs[name], i) for i in range(3)]
                print(f"medians, {name}: {us[0]:.2f} s = {us[0] / ideal:.2f} x ideal, the quickest peer {best[0]:.2f} s = {best[0] / us[0]:.1f} x; "
                      f"CPU {us[1]:.2f} s, the best peer {best[1]:.2f} s = {best[1] / us[1]:.1f} x; "
                      f"peak {us[2]:.0f} MiB, the leanest peer {best[2]:.0f} MiB = {best[2] / us[2]:.1f} x")
        with Mock(args, args.port + 1, 0.1) as mock:
            out = f"{folder}/faulty"
            wall, cpu, rss, _ = measured(ours(args, folder, mock.url, out))
            stats = get(mock.url + "/stats")
            print(f"10 % faults wall={wall:.2f}s cpu={cpu:.2f}s peak={rss:.0f}MiB right={right(out)} faults={stats['faults']} answered={stats['answered']}")
            assert stats["answered"] == args.items, "every item is answered exactly once"
        with Mock(args, args.port + 2, 0) as mock:
            out, kills = f"{folder}/killed", []
            for pause in (0.35, 0.45, 0.55):
                process = subprocess.Popen(ours(args, folder, mock.url, out), stdout=subprocess.DEVNULL)
                time.sleep(pause)
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills.append(get(mock.url + "/stats")["answered"])
            measured(ours(args, folder, mock.url, out))
            log = next(os.path.join(d, "log.jsonl") for d, _, files in os.walk(out) if "log.jsonl" in files)
            items = [json.loads(line)["item"] for line in open(log)]
            answered = get(mock.url + "/stats")["answered"]
            lost = answered - args.items
            print(f"kill -9     after {kills} answers; then log lines={len(items)} different items={len(set(items))} right={right(out)}; "
                  f"answers under way at the kills (asked again because they never arrived): {lost}")
            assert len(items) == len(set(items)) == args.items, "no item lost, none logged twice"
            assert 0 <= lost <= 3 * (args.connections * 3 // 2 + 4)


if __name__ == "__main__":
    main()
