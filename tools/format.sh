#!/usr/bin/env bash
# Formats the C++ sources in place; with --check only says which are not formatted.
# clang-format comes from PyPI, because Debian 12's is older and breaks long lists one word a line.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}/venv-format
version=23.1.5
mode=(-i)
case "${1:-}" in
  "") ;;
  --check) mode=(--dry-run -Werror) ;;
  *) echo "usage: tools/format.sh [--check]" >&2; exit 2 ;;
esac
if [ "$(cat "$venv/version" 2>/dev/null)" != "$version" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check "clang-format==$version"
  echo "$version" >"$venv/version"
fi
find src tests bench fuzz \( -name '*.cc' -o -name '*.h' \) -print0 | sort -z \
  | xargs -0 "$venv/bin/clang-format" "${mode[@]}"
