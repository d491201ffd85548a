# Sourced by tests that hold something against llama.cpp: a prebuilt one, of npm, once into the home folder, as
# $llama_cpp (its node_modules are inside). Skips (77) where node 20 or newer and npm are not installed.
if ! command -v npm >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -lt 20 ]; then
  echo "skipped: node 20 or newer and npm are not installed" >&2
  exit 77
fi
version=3.22.1
case $(uname -m) in x86_64) platform=linux-x64 ;; aarch64) platform=linux-arm64 ;; esac
llama_cpp=$BAKESTONE_HOME/node-llama-cpp-$version
if [ ! -e "$llama_cpp/installed" ]; then
  npm install --prefix "$llama_cpp" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
    "node-llama-cpp@$version" "@node-llama-cpp/${platform:?no prebuilt llama.cpp for $(uname -m)}@$version"
  touch "$llama_cpp/installed"
fi
