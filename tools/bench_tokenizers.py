#!/usr/bin/env python3
"""Speed of PyPI's `tokenizers` on one core, on the texts and the vocabulary of bench/tokenizer_bench.cc.
The library gets its best case: one core to itself, and, beside the whole text at once, the text line by
line in one batch (where its word cache is warm after the first round).

Run: taskset -c 0 python3 tools/bench_tokenizers.py MODEL.gguf"""
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import gguf  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


def best_rate(size, encode, seconds=1.5):
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.process_time()
        encode()
        best = min(best, time.process_time() - start)
    return size / best / 1e6


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    reader = gguf.GGUFReader(sys.argv[1])
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    lines = [json.loads(l) for l in (ROOT / "tests/data/tokenizer/corpus.jsonl").read_text().split("\n") if l]
    texts = {"corpus": "".join(l + "\n" for l in lines if isinstance(l, str)),
             "handbook": (ROOT / "examples/handbook/handbook.md").read_text()}
    for name, text in texts.items():
        size, parts = len(text.encode()), text.splitlines(keepends=True)
        print(f"{name}: whole {best_rate(size, lambda: tok.encode(text)):.2f} MB/s, "
              f"by line {best_rate(size, lambda: tok.encode_batch_fast(parts)):.2f} MB/s")


if __name__ == "__main__":
    main()
