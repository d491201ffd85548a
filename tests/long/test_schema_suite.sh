#!/usr/bin/env bash
# The official JSON-Schema-Test-Suite (draft 2020-12, its required part) against answers of a given form. PyPI's source
# package of jsonschema carries it.
set -euo pipefail
binary=${1:?usage: test_schema_suite.sh BINARY}
version=4.23.0
sha256=d71497fef26351a33265337fa77ffeb82423f3ea21283cd9467bb03999266bc4
folder=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}/check/jsonschema-$version
if [ ! -d "$folder" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary jsonschema -d "$work" "jsonschema==$version"
  echo "$sha256  $work/jsonschema-$version.tar.gz" | sha256sum -c --quiet
  tar -xzf "$work/jsonschema-$version.tar.gz" -C "$work"
  mkdir -p "$(dirname "$folder")"
  mv "$work/jsonschema-$version/json" "$folder"
fi
exec "$(dirname "$binary")/tests/schema_suite" "$folder/tests/draft2020-12"
