#!/usr/bin/env bash
# Files quantized here predict no further from the original than llama.cpp's of the same types, sizes and
# importance matrix: on a model whose rows every type fits (make_widened.py), by the upper end of the
# ratio's 95 % interval. Needs npm, and a Python with gguf and numpy: PYTHON, or python3. About 20 minutes on 2 cores.
#   test_quantize_peers.sh BINARY [OPTION-OF-quantize_compare.py]...
source "$(dirname "$0")/../e2e/lib.sh"
python=${PYTHON:-python3}
if ! "$python" -c 'import gguf, numpy' 2>/dev/null; then
  echo "skipped: $python has no gguf and numpy" >&2
  exit 77
fi
source "$(dirname "$0")/../e2e/llama_cpp.sh"
build=$(dirname "$bakestone")
cmake --build "$build" --target kl_ratio_bench >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; fail "building"; }
library=$(find "$llama_cpp/node_modules/@node-llama-cpp" -name libggml-base.so | head -n 1)

python3 "$repository/tools/get_debian_handbook.py" "$BAKESTONE_HOME/data" >/dev/null
cat "$repository"/src/engine/*.cc >"$work/code.txt"
"$bakestone" quantize "$model" "$work/f32.gguf" --type f32 >/dev/null 2>&1
"$python" "$repository/bench/peers/make_widened.py" "$work/f32.gguf" "$work/wide.gguf" >/dev/null
"$python" "$repository/bench/peers/quantize_compare.py" --model "$work/wide.gguf" --bakestone "$bakestone" \
  --kl "$build/bench/kl_ratio_bench" --ggml "llama.cpp=${library:?no libggml-base.so}" --at-most 1 --matrix yes \
  --types Q4_K_M,Q4_0,Q6_K,Q8_0,IQ4_XS --tokens 3000 --text "domain=$BAKESTONE_HOME/data/replay-jargon.txt" \
  --text "code=$work/code.txt" --text "second=$BAKESTONE_HOME/data/handbook-pt-BR-heldout.md" "${@:2}"
