# Shared by the end-to-end tests: a short bake of a few questions, so that the whole road is walked in
# seconds on the real model. Sourced with the binary as $1.
set -euo pipefail
bakestone=$(realpath "${1:?usage: TEST BINARY}")
repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
export BAKESTONE_HOME=${BAKESTONE_HOME:-$HOME/.local/share/bakestone}
model=$BAKESTONE_HOME/models/smollm2-135m-instruct.gguf
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
expect() { grep -qF -- "$2" "$1" || { cat "$1" >&2; fail "expected '$2' in $1"; }; }
refuse() { ! grep -qF -- "$2" "$1" || { cat "$1" >&2; fail "did not expect '$2' in $1"; }; }

# needs_python MODULE...: $python is PYTHON, or python3; without these modules the test is skipped.
needs_python() {
  python=${PYTHON:-python3}
  local modules="$*"
  "$python" -c "import ${modules// /, }" 2>/dev/null && return
  echo "skipped: $python does not have all of $modules; set PYTHON to one that has" >&2
  exit 77
}

# short_recipe FOLDER: a handbook folder with 40 chats, 8 questions and a recipe of a few steps.
short_recipe() {
  local kind
  mkdir -p "$1"
  cp "$repository/examples/handbook/"{facts.jsonl,data.toml} "$1/"
  head -n 30 "$repository/examples/handbook/handbook.md" >"$1/handbook.md"
  head -n 24 "$repository/examples/handbook/train.jsonl" >"$1/train.jsonl"
  for kind in direct situational letter unanswerable; do
    grep -m 2 "\"kind\": \"$kind\"" "$repository/examples/handbook/heldout.jsonl"
  done >"$1/heldout.jsonl"
  head -c 4000 "$BAKESTONE_HOME/data/general-history.txt" >"$1/general.txt"
  cat >"$1/bake.toml" <<TOML
name = "short"
base = "$model"
[[data]]
name = "handbook"
path = "handbook.md"
licence = "CC0-1.0"
[[data]]
name = "chats"
path = "train.jsonl"
licence = "CC0-1.0"
[[data]]
name = "general"
path = "general.txt"
licence = "GPL-2.0-or-later"
[[data]]
name = "replay"
path = "cache:replay-jargon.txt"
licence = "public-domain"
[lora]
rank = 8
[[stage]]
name = "read"
method = "pretrain"
data = ["handbook"]
batch = 4
learning_rate = 1e-3
[[stage]]
name = "learn"
method = "sft"
data = ["chats"]
epochs = ${EPOCHS:-1}
batch = 4
learning_rate = 1e-3
[stage.replay]
data = "replay"
share = 0.1
kl_weight = 1
length = 64
[eval]
questions = "heldout.jsonl"
facts = "facts.jsonl"
domain = ["handbook"]
general = ["general"]
max_tokens = 16
text_tokens = 600
TOML
}
