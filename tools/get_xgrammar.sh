#!/usr/bin/env bash
# Builds what the server's answers of a given form need into the home folder, once: the core of xgrammar 0.2.8
# (Apache-2.0), from its PyPI source package, pinned by SHA-256. CMake finds it there. Prints the folder.
set -euo pipefail

version=0.2.8
sha256=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80
build=1  # of the recipe below
# Everything but its readers of schemas, Lark and structural tags, and the Python binding.
sources=(compiled_grammar config earley_parser fsm fsm_builder grammar grammar_builder grammar_compiler
         grammar_functor grammar_matcher grammar_parser grammar_printer regex_converter suffix_automata testing
         tokenizer_info support/logging support/recursion_guard)
home=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}
target=$home/xgrammar-$version-$build
stand_in=$(cd "$(dirname "$0")" && pwd)/xgrammar_unused.cc

if [ ! -f "$target/lib/libxgrammar.a" ]; then
  mkdir -p "$home"
  work=$(mktemp -d "$home/.xgrammar.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  echo "fetching xgrammar $version (2.7 MB) from PyPI and building it (about a minute of one core)" >&2
  # pip asks a source package's build system for metadata before it hands the package over; this stands in for
  # that system, so that nothing else is fetched or run.
  mkdir -p "$work/backend/scikit_build_core" "$work/objects/support" "$work/folder/lib"
  cat >"$work/backend/scikit_build_core/build.py" <<PY
import os
def get_requires_for_build_wheel(settings=None): return []
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "xgrammar-$version.dist-info"
    os.makedirs(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as out:
        out.write("Metadata-Version: 2.1\nName: xgrammar\nVersion: $version\n")
    return name
PY
  PYTHONPATH="$work/backend" python3 -m pip download -q --disable-pip-version-check --no-deps --no-build-isolation \
    --no-binary xgrammar -d "$work" "xgrammar==$version" >&2
  found=$(sha256sum "$work/xgrammar-$version.tar.gz" | cut -d' ' -f1)
  if [ "$found" != "$sha256" ]; then
    echo "get_xgrammar: expected SHA-256 $sha256, found $found" >&2
    exit 1
  fi
  tar -xzf "$work/xgrammar-$version.tar.gz" -C "$work" --strip-components=1
  compiler=(g++)
  if command -v ccache >/dev/null; then compiler=(ccache g++); fi
  cp "$stand_in" "$work/cpp/stand_in.cc"
  printf '%s\n' "${sources[@]}" stand_in | (cd "$work" && xargs -P "$(nproc)" -I NAME "${compiler[@]}" -std=c++17 -O1 -fPIC \
    -DXGRAMMAR_ENABLE_CPPTRACE=0 -DXGRAMMAR_ENABLE_INTERNAL_CHECK=0 -Iinclude -isystem 3rdparty/picojson \
    -isystem 3rdparty/dlpack/include -Icpp -c cpp/NAME.cc -o objects/NAME.o) >&2
  ar rcs "$work/folder/lib/libxgrammar.a" "$work"/objects/*.o "$work"/objects/support/*.o
  cp -r "$work/include" "$work/folder/include"
  cp -r "$work/3rdparty/dlpack/include/dlpack" "$work/folder/include/dlpack"
  cp "$work/LICENSE" "$work/folder/"
  rm -rf "$target"
  mv "$work/folder" "$target"
fi
echo "$target"
