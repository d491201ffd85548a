#!/usr/bin/env bash
# The templates of real models, which the repository does not hold: rendered here and by Python's jinja2.
set -euo pipefail
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
python3 "$repository/tools/check_real_templates.py" "${1:?usage: test_templates.sh BINARY}"
