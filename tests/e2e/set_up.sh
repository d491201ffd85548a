#!/usr/bin/env bash
# What the end-to-end tests need beside Debian's packages: the clients that others use, in a folder of their own.
set -euo pipefail
venv=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}/venv-test
clients=(openai==3.54.0 anthropic==2.14.0 ollama==0.6.3)
[ -x "$venv/bin/pip" ] || { rm -rf "$venv" && python3 -m venv "$venv"; }
stamp="$venv/clients"
if [ "$(cat "$stamp" 2>/dev/null)" != "${clients[*]}" ]; then
  "$venv/bin/pip" install -q --disable-pip-version-check "${clients[@]}"
  echo "${clients[*]}" >"$stamp"
fi
