#!/usr/bin/env bash
# What export and merge write, loaded by transformers, PEFT and the package gguf. Needs a Python that has them:
# PYTHON, or python3.
set -euo pipefail
bakestone=$(realpath "${1:?usage: TEST BINARY}")
exec "${PYTHON:-python3}" "$(dirname "$0")/../../tools/check_export.py" "$bakestone"
