#!/usr/bin/env python3
"""Writes a GGUF model of random weights with the shape and the types of a real one, for measuring speed.

    python3 tools/make_random_gguf.py llama-3.2-1b Q4_K_M /tmp/1b-q4_k_m.gguf

Shapes: smollm2-135m, qwen2.5-0.5b (without its biases), llama-3.2-1b, llama-3-8b, and moe-5b, 64 small experts a layer
of which 8 are chosen, built like Mixtral. Types: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K,
Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, and the mixture Q4_K_M. As llama.cpp's quantizer does, the
matrix of the logits has at least 6 bits, and where a row is no multiple of 256, a type of 32-blocks stands
in for a type of super-blocks. The vocabulary is 256 bytes and a merge, padded to the real size.

Only the standard library, and a few megabytes of memory: matrices are cut from a pool of 4,099 random
blocks for each type (a prime, so that rows differ). The same arguments give the same bytes.
"""
import argparse
import math
import os
import random
import struct
import sys

SHAPES = {  # layers, hidden, feed-forward, heads, kv heads, head size, vocabulary, context, theta, tied
    "smollm2-135m": (30, 576, 1536, 9, 3, 64, 49152, 8192, 1e5, True),
    "qwen2.5-0.5b": (24, 896, 4864, 14, 2, 64, 151936, 32768, 1e6, True),
    "llama-3.2-1b": (16, 2048, 8192, 32, 8, 64, 128256, 131072, 5e5, True),
    "llama-3-8b": (32, 4096, 14336, 32, 8, 128, 128256, 8192, 5e5, False),
    "moe-5b": (16, 2048, 768, 16, 4, 128, 49152, 8192, 1e6, True),
}
EXPERTS = {"moe-5b": (64, 8)}  # of a layer, and chosen of them
# name: GGUF's number, weights and bytes of a block
TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18),
    "IQ4_XS": (23, 256, 136), "BF16": (30, 1, 2), "MXFP4": (39, 32, 17),
}
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1",
            "Q6_K": "Q8_0"}
POOL_BLOCKS = 4099
ALIGNMENT = 32
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def half(value):
    return struct.pack("<e", value)


def random_block(rng, kind):
    """One valid block whose weights have mean about zero and a magnitude of a few hundredths."""
    size = TYPES[kind][2]
    raw = bytearray(rng.randbytes(size))
    scale = 0.004 * rng.uniform(0.75, 1.25)

    def put(at, value):
        raw[at:at + 2] = half(value)

    if kind == "F32":
        raw[:] = struct.pack("<f", rng.gauss(0, 0.02))
    elif kind == "F16":
        raw[:] = half(rng.gauss(0, 0.02))
    elif kind == "BF16":
        raw[:] = struct.pack("<f", rng.gauss(0, 0.02))[2:]
    elif kind == "Q4_0":
        put(0, scale)
    elif kind == "IQ4_NL":
        put(0, scale / 8)
    elif kind == "Q4_1":
        put(0, scale), put(2, -7.5 * scale)
    elif kind == "Q5_0":
        put(0, scale / 2)
    elif kind == "Q5_1":
        put(0, scale / 2), put(2, -7.75 * scale)
    elif kind == "Q8_0":
        put(0, scale / 16)
    elif kind == "MXFP4":
        raw[0] = rng.choice((118, 119, 120))
    elif kind == "Q2_K":
        put(80, scale / 4), put(82, scale / 4 * 1.5)
    elif kind == "Q3_K":
        put(108, scale / 16)
    elif kind == "Q4_K":
        put(0, scale / 32), put(2, scale / 32 * 7.5)
    elif kind == "Q5_K":
        put(0, scale / 64), put(2, scale / 64 * 15.5)
    elif kind == "Q6_K":
        raw[192:208] = bytes(rng.randrange(-16, 17) & 255 for _ in range(16))
        put(208, scale / 32)
    elif kind == "IQ4_XS":
        put(0, scale / 128)
    return bytes(raw)


class Blocks:
    """A running supply of blocks of each type."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.pools, self.at = {}, {}

    def write(self, out, kind, count):
        if kind not in self.pools:
            self.pools[kind] = b"".join(random_block(self.rng, kind) for _ in range(POOL_BLOCKS))
            self.at[kind] = 0
        pool, size = self.pools[kind], TYPES[kind][2]
        while count > 0:
            take = min(count, POOL_BLOCKS - self.at[kind])
            out.write(memoryview(pool)[self.at[kind] * size:(self.at[kind] + take) * size])
            self.at[kind] = (self.at[kind] + take) % POOL_BLOCKS
            count -= take


def fitting(kind, columns):
    return FALLBACK[kind] if columns % TYPES[kind][1] else kind


def more_bits(layer, layers):
    """The layers to whose v and down the mixture gives 6 bits: the first, the last, every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2


def tensors(shape, mix, experts):
    """(name, type, dimensions, fastest first) in the order of the file."""
    layers, hidden, ffn, heads, kv_heads, head, vocab, _, _, tied = shape
    base = "Q4_K" if mix == "Q4_K_M" else mix
    logits = base if base in ("F32", "F16", "BF16", "Q8_0") else "Q6_K"

    def matrix(name, kind, columns, rows):
        return (name + ".weight", fitting(kind, columns), (columns, rows))

    def vector(name):
        return (name + ".weight", "F32", (hidden,))

    yield matrix("token_embd", logits if tied else base, hidden, vocab)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        high = "Q6_K" if mix == "Q4_K_M" and more_bits(layer, layers) else base
        yield vector(prefix + "attn_norm")
        yield matrix(prefix + "attn_q", base, hidden, heads * head)
        yield matrix(prefix + "attn_k", base, hidden, kv_heads * head)
        yield matrix(prefix + "attn_v", high, hidden, kv_heads * head)
        yield matrix(prefix + "attn_output", base, heads * head, hidden)
        yield vector(prefix + "ffn_norm")
        if experts:
            yield (prefix + "ffn_gate_inp.weight", "F32", (hidden, experts[0]))
        for part, kind, columns, rows in (("gate", base, hidden, ffn), ("up", base, hidden, ffn), ("down", high, ffn, hidden)):
            name, of_type, dimensions = matrix(prefix + f"ffn_{part}" + ("_exps" if experts else ""), kind, columns, rows)
            yield (name, of_type, dimensions + ((experts[0],) if experts else ()))
    yield vector("output_norm")
    if not tied:
        yield matrix("output", logits, hidden, vocab)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def byte_symbol(byte):
    """The character that byte-level vocabularies write for a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte) if byte in plain else chr(256 + sum(b not in plain for b in range(byte)))


def metadata(shape, name, experts):
    layers, hidden, ffn, heads, kv_heads, head, vocab, context, theta, _ = shape
    tokens = ["<|endoftext|>", *(byte_symbol(byte) for byte in range(256)), "th"]
    types = [3] + [1] * 257
    tokens += [f"unused {i}" for i in range(vocab - len(tokens))]
    types += [5] * (vocab - len(types))  # 5: unused
    scalar = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}

    def array(kind, values):
        body = b"".join(text(v) if kind == STRING else struct.pack(scalar[kind], v) for v in values)
        return struct.pack("<IQ", kind, len(values)) + body

    entries = [
        ("general.architecture", STRING, "llama"), ("general.name", STRING, name),
        ("general.license", STRING, "cc0-1.0"), ("llama.block_count", U32, layers),
        ("llama.context_length", U32, context), ("llama.embedding_length", U32, hidden),
        ("llama.feed_forward_length", U32, ffn), ("llama.attention.head_count", U32, heads),
        ("llama.attention.head_count_kv", U32, kv_heads), ("llama.attention.key_length", U32, head),
        ("llama.attention.value_length", U32, head), ("llama.rope.dimension_count", U32, head),
        ("llama.rope.freq_base", F32, theta), ("llama.vocab_size", U32, vocab),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, array(I32, types)),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, ["t h"])),
        ("tokenizer.ggml.bos_token_id", U32, 0), ("tokenizer.ggml.eos_token_id", U32, 0),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
    ]
    if experts:
        entries += [("llama.expert_count", U32, experts[0]), ("llama.expert_used_count", U32, experts[1])]
    body = b""
    for key, kind, value in entries:
        body += text(key) + struct.pack("<I", kind)
        body += value if kind == ARRAY else text(value) if kind == STRING else struct.pack(scalar[kind], value)
    return len(entries), body


def blocks_of(kind, dimensions):
    return math.prod(dimensions) // TYPES[kind][1]


def aligned(size):
    return -size % ALIGNMENT


def write(path, shape, mix, name, seed, experts=None):
    listed = list(tensors(shape, mix, experts))
    count, body = metadata(shape, name, experts)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(listed), count) + body
    offset = 0
    for tensor, kind, dimensions in listed:
        header += text(tensor) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        header += struct.pack("<IQ", TYPES[kind][0], offset)
        size = blocks_of(kind, dimensions) * TYPES[kind][2]
        offset += size + aligned(size)
    blocks = Blocks(seed)
    with open(path + ".part", "wb") as out:
        out.write(header + bytes(aligned(len(header))))
        for tensor, kind, dimensions in listed:
            if len(dimensions) == 1:
                out.write(struct.pack("<f", 1.0) * dimensions[0])
            else:
                blocks.write(out, kind, blocks_of(kind, dimensions))
            out.write(bytes(aligned(out.tell())))
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=[*TYPES, "Q4_K_M"])
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write(args.output, SHAPES[args.shape], args.type, f"random {args.shape} {args.type}", args.seed, EXPERTS.get(args.shape))
    print(f"{args.output}: {os.path.getsize(args.output) / 1e6:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
