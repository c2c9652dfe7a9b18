"""Greedy decoding of one GGUF checkpoint by ocelli and by llama.cpp, in turn, on two threads each.

    python -m venv venv && venv/bin/pip install xllamacpp==2026.10.11549      # llama.cpp, prebuilt for the CPU
    cargo build --release -p ocelli-model --example decode_bench
    venv/bin/python bench/decode_llamacpp.py SmolLM2-135M-Instruct.Q4_1.gguf [pairs]

Each sequence has a prompt of 64 tokens of its own and generates 128 tokens whatever they are. A figure is
tokens / (time of the whole, prompts included). Prints one JSON object per run.
"""
import json
import subprocess
import sys
import threading
import time

PROMPT, NEW, THREADS = 64, 128, 2


def rss_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def llamacpp(model, n, runs):
    """In a process of its own, so that peak memory is that of one configuration."""
    import xllamacpp as x

    p = x.CommonParams()
    p.model.path = model
    p.n_ctx, p.n_parallel, p.n_gpu_layers = n * (PROMPT + NEW + 16), n, 0
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = THREADS
    p.cache_prompt, p.warmup = False, True
    server = x.Server(p)

    def one(s, failed):
        ids = [1000 + (s * 7919 + i * 104729) % 40000 for i in range(PROMPT)]
        request = {"prompt": ids, "n_predict": NEW, "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": False}
        answer = server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        got = answer["timings"]["predicted_n"] if "timings" in answer else answer["usage"]["completion_tokens"]
        if got != NEW:
            failed.append(got)

    times = []
    for run in range(runs + 1):
        failed = []
        start = time.perf_counter()
        threads = [threading.Thread(target=one, args=(s, failed)) for s in range(n)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        if failed:
            raise SystemExit(f"llama.cpp stopped after {failed} tokens")
        if run:
            times.append(time.perf_counter() - start)
    median = sorted(times)[len(times) // 2]
    print(json.dumps({"stack": "llama.cpp", "sequences": n, "seconds": round(median, 3), "tok_s": round(n * NEW / median, 1), "rss_mib": round(rss_mib())}))


def main():
    if sys.argv[1] == "--peer":
        return llamacpp(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    model, pairs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    for _ in range(pairs):
        for n in (1, 16):
            for ours in ([], ["--bf16"]):
                command = ["target/release/examples/decode_bench", model, "--sequences", str(n), "--prompt", str(PROMPT), "--new", str(NEW), "--runs", "1"]
                print(subprocess.run(command + ours, check=True, capture_output=True, text=True).stdout.strip(), "bf16" if ours else "f32", flush=True)
            peer = [sys.executable, __file__, "--peer", model, str(n), "1"]
            out = subprocess.run(peer, check=True, capture_output=True, text=True).stdout
            print(next(line for line in out.splitlines() if line.startswith("{")), flush=True)


main()
