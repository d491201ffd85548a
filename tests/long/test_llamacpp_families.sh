#!/usr/bin/env bash
# llama.cpp computes the logits of the families: of the golden models, and of GGUF files that export wrote. Needs node 20 or
# newer and npm, which installs a prebuilt llama.cpp once into the home folder; for the latter a Python with torch,
# transformers, peft and gguf (PYTHON, or python3), else only the golden models are tried.
source "$(dirname "$0")/../e2e/lib.sh"
source "$(dirname "$0")/../e2e/llama_cpp.sh"
cd "$llama_cpp"
node "$repository/tools/check_llamacpp_families.mjs" "$repository/tests/data/families"
if "${PYTHON:-python3}" -c 'import gguf, peft, torch, transformers' 2>/dev/null; then
  "${PYTHON:-python3}" "$repository/tools/check_export.py" "$bakestone" "$work/usual"
  node "$repository/tools/check_llamacpp_families.mjs" --usual "$work/usual"
fi
