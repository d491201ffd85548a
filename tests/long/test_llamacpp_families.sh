#!/usr/bin/env bash
# llama.cpp computes the logits of the families: of the golden models, and of GGUF files that export wrote. Needs node 20 or
# newer and npm, which installs a prebuilt llama.cpp once into the home folder; for the latter a Python with torch,
# transformers, peft and gguf (PYTHON, or python3), else only the golden models are tried.
source "$(dirname "$0")/../e2e/lib.sh"
if ! command -v npm >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -lt 20 ]; then
  echo "skipped: node 20 or newer and npm are not installed" >&2
  exit 77
fi
version=3.22.1
case $(uname -m) in x86_64) platform=linux-x64 ;; aarch64) platform=linux-arm64 ;; esac
folder=$BAKESTONE_HOME/node-llama-cpp-$version
if [ ! -e "$folder/installed" ]; then
  npm install --prefix "$folder" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
    "node-llama-cpp@$version" "@node-llama-cpp/${platform:?no prebuilt llama.cpp for $(uname -m)}@$version"
  touch "$folder/installed"
fi
cd "$folder"
node "$repository/tools/check_llamacpp_families.mjs" "$repository/tests/data/families"
if "${PYTHON:-python3}" -c 'import gguf, peft, torch, transformers' 2>/dev/null; then
  "${PYTHON:-python3}" "$repository/tools/check_export.py" "$bakestone" "$work/usual"
  node "$repository/tools/check_llamacpp_families.mjs" --usual "$work/usual"
fi
