#!/usr/bin/env python3
"""Makes tests/data/gguf/: files written by the Python package `gguf`, an implementation other than ours.

  goldens.gguf      for each quantized type T a tensor "T" of valid blocks (random ones, then extremes:
                    zero, denormal and largest scales, all bits set) and "T.f32", what gguf makes of
                    them; "qk.hf" and "qk.gguf", rows before and after llama's permutation; and keys
                    "f16.sha256", "bf16.sha256": hashes of the floats of all 65,536 bit patterns
                    (NaN patterns of f16 replaced by zero: processors differ in their payloads)
  metadata_v3.gguf  every metadata type, nested arrays, two tensors, alignment 64
  metadata_v2.gguf  the same, version 2
  tiny_llama.gguf   a whole llama-architecture model: 2 layers, hidden 64, 4 heads, 2 kv heads, F32
                    norms, Q8_0 and Q4_0 and Q4_1 matrices, a byte-level vocabulary

Needs gguf and numpy. Run: python3 tools/make_gguf_goldens.py. The seed and the versions used are
written to tests/data/gguf/VERSIONS.
"""
import hashlib
import importlib.metadata
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

SEED = 20240917
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "gguf"
# Byte offsets of the f16 fields of each block type; MXFP4 has none.
HALVES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82],
    T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0],
    T.MXFP4: [],
}
EXTREME_HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF]


def blocks_of(rng, qtype):
    block_size, type_size = gguf.GGML_QUANT_SIZES[qtype]
    count = 48 if block_size == 32 else 16
    blocks = rng.integers(0, 256, (count, type_size), dtype=np.uint8)
    scales = (rng.standard_normal((count, 2)) * 0.02).astype(np.float16)
    blocks[0, :] = 0
    blocks[1, :] = 255
    for column, offset in enumerate(HALVES[qtype]):
        blocks[:, offset:offset + 2] = scales[:, column:column + 1].view(np.uint8)
        for i, half in enumerate(EXTREME_HALVES):
            at = 1 + (i + column * 3) % len(EXTREME_HALVES)
            blocks[at, offset:offset + 2] = np.array([half], dtype=np.uint16).view(np.uint8)
    if qtype == T.MXFP4:
        blocks[:, 0] = np.linspace(0, 255, count).astype(np.uint8)
        blocks[1, 0] = 1
    return blocks.reshape(1, -1)


def permuted(rows, num_heads):
    """What the converter of llama models does to the rows of q and k."""
    shape = (num_heads, 2, rows.shape[0] // num_heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def make_goldens(rng):
    writer = gguf.GGUFWriter(OUT / "goldens.gguf", "goldens")
    halves = np.arange(65536, dtype=np.uint16)
    f16 = halves.view(np.float16).astype(np.float32)
    f16[(halves & 0x7FFF) > 0x7C00] = 0
    bf16 = gguf.quants.dequantize(halves.view(np.uint8).reshape(1, -1), T.BF16)
    writer.add_string("f16.sha256", hashlib.sha256(f16.tobytes()).hexdigest())
    writer.add_string("bf16.sha256", hashlib.sha256(bf16.tobytes()).hexdigest())
    with np.errstate(over="ignore"):
        for qtype in HALVES:
            blocks = blocks_of(rng, qtype)
            writer.add_tensor(qtype.name, blocks, raw_dtype=qtype)
            writer.add_tensor(qtype.name + ".f32", gguf.quants.dequantize(blocks, qtype))
    rows = rng.standard_normal((24, 4)).astype(np.float32)
    writer.add_tensor("qk.hf", rows)
    writer.add_tensor("qk.gguf", np.ascontiguousarray(permuted(rows, 3)))
    finish(writer)


def make_metadata(rng):
    path = OUT / "metadata_v3.gguf"
    writer = gguf.GGUFWriter(path, "test")
    writer.add_custom_alignment(64)
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -100)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_uint64("t.u64", 2**64 - 1)
    writer.add_int64("t.i64", -2**63)
    writer.add_float32("t.f32", 0.1)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.true", True)
    writer.add_bool("t.false", False)
    writer.add_string("t.string", "satu dua tiga \u2603")
    writer.add_key_value("t.empty", "", gguf.GGUFValueType.STRING)
    writer.add_array("t.strings", ["a", "", "ccc"])
    writer.add_array("t.i32s", [-1, 0, 7])
    writer.add_array("t.f32s", [0.5, -0.25])
    writer.add_array("t.bools", [True, False, True])
    writer.add_array("t.nested", [[1, 2, 3], [4, 5], [6]])
    writer.add_tensor("first", rng.standard_normal((3, 5)).astype(np.float32))
    writer.add_tensor("second", rng.standard_normal(7).astype(np.float16))
    finish(writer)
    data = bytearray(path.read_bytes())
    assert data[4:8] == b"\3\0\0\0"
    data[4] = 2
    (OUT / "metadata_v2.gguf").write_bytes(data)


def byte_vocabulary():
    """The 256 characters that byte-level BPE gives to bytes, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(extra)}
    return [table[b] for b in range(256)]


def make_tiny_llama(rng):
    hidden, heads, kv_heads, ff, layers = 64, 4, 2, 128, 2
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + byte_vocabulary() + ["he", "in"]
    tokens += [f"<|reserved_{i}|>" for i in range(320 - len(tokens))]
    writer = gguf.GGUFWriter(OUT / "tiny_llama.gguf", "llama")
    writer.add_type("model")
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 258 + [3] * (320 - 261))
    writer.add_token_merges(["h e", "i n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def matrix(name, rows, cols, qtype):
        values = (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, qtype), raw_dtype=qtype)

    def norm(name):
        writer.add_tensor(name, (1 + 0.1 * rng.standard_normal(hidden)).astype(np.float32))

    matrix("token_embd.weight", len(tokens), hidden, T.Q8_0)
    kv = hidden // heads * kv_heads
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", hidden, hidden, T.Q4_0)
        matrix(f"blk.{i}.attn_k.weight", kv, hidden, T.Q4_0)
        matrix(f"blk.{i}.attn_v.weight", kv, hidden, T.Q8_0)
        matrix(f"blk.{i}.attn_output.weight", hidden, hidden, T.Q4_1)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", ff, hidden, T.Q4_1)
        matrix(f"blk.{i}.ffn_up.weight", ff, hidden, T.Q4_1)
        matrix(f"blk.{i}.ffn_down.weight", hidden, ff, T.Q8_0)
    norm("output_norm.weight")
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    make_goldens(np.random.default_rng(SEED))
    make_metadata(np.random.default_rng(SEED + 1))
    make_tiny_llama(np.random.default_rng(SEED + 2))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("gguf", "numpy")]
    (OUT / "VERSIONS").write_text(f"tools/make_gguf_goldens.py\nseed {SEED}\n" + "\n".join(versions) + "\n")


if __name__ == "__main__":
    main()
