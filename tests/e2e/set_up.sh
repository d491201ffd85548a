#!/usr/bin/env bash
# What the end-to-end tests need beside Debian's packages: the real OpenAI client, in a folder of its own.
set -euo pipefail
venv=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}/venv-test
openai=3.54.0
if ! "$venv/bin/python" -c "import openai; assert openai.__version__ == '$openai'" 2>/dev/null; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "openai==$openai"
fi
