#!/usr/bin/env bash
# Installs what is missing from Debian, and nothing else. README.md has the table of what and why.
#   tools/setup.sh build   what ./quickstart needs: compiler, libraries, pip
#   tools/setup.sh test    also what ./test needs: GoogleTest, the second compiler, Arm, tracing
#   tools/setup.sh parquet Apache Arrow's C++ library, from PyPI, into BAKESTONE_HOME; CMake finds it there
set -euo pipefail

build=(g++ cmake ninja-build ccache mold pkg-config python3 python3-pip ca-certificates
       libboost1.81-dev libssl-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev libfmt-dev
       libspdlog-dev libutf8proc-dev libpcre2-dev libcurl4-openssl-dev
       zlib1g-dev libzstd-dev)
test=(git libgtest-dev libgmock-dev python3-venv python3-jinja2 iproute2 strace curl procps openssl
      clang-19 libclang-rt-19-dev
      g++-aarch64-linux-gnu qemu-user-static)
arm=(libfmt-dev:arm64 libssl-dev:arm64 libspdlog-dev:arm64 libpcre2-dev:arm64 libutf8proc-dev:arm64
     libtomlplusplus-dev:arm64 libgtest-dev:arm64 libgmock-dev:arm64)

case "${1:-}" in
  build) wanted=("${build[@]}") ;;
  test) wanted=("${build[@]}" "${test[@]}" "${arm[@]}") ;;
  parquet)
    folder=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}/pyarrow
    [ -d "$folder/pyarrow-26.0.1.dist-info" ] && exit 0
    rm -rf "$folder"
    python3 -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --target "$folder" pyarrow==26.0.1
    exit ;;
  *) echo "usage: tools/setup.sh build|test|parquet" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: expected Debian 12 or a system with apt; install these packages' equivalents by hand:" >&2
  echo "  ${wanted[*]}" >&2
  exit 1
fi

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'install ok installed' \
    || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: missing ${missing[*]}; run as root or install sudo" >&2; exit 1; }
  sudo=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
if printf '%s\n' "${missing[@]}" | grep -q ':arm64$'; then
  "${sudo[@]}" dpkg --add-architecture arm64
fi
"${sudo[@]}" apt-get update -q >&2
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
