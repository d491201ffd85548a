#!/usr/bin/env bash
# The templates of real models, which the repository does not hold: rendered here and by Python's jinja2, and
# the tool calls that they show read back as those calls.
set -euo pipefail
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
binary=${1:?usage: test_templates.sh BINARY}
python3 "$repository/tools/check_real_templates.py" "$binary"
home=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}
"$(dirname "$binary")/tests/reply_formats" "$(echo "$home"/check/llama-cpp-python-*-templates)"
