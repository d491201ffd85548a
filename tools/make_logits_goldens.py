#!/usr/bin/env python3
"""Makes the logits that src/model/ is tested against, by a forward pass of its own.

  make_logits_goldens.py tiny                      tests/data/model/tiny.gguf and tiny.logits
  make_logits_goldens.py texts MODEL.gguf OUT      the texts of tests/data/model/texts with a real model

The forward pass is NumPy in float32 over weights that PyPI's `gguf` dequantizes; rotary pairs are
turned in the file's own row order, so nothing of Bakestone's loader is assumed. Texts are tokenized by
PyPI's `tokenizers` from the vocabulary in the file. tests/data/model/smollm2.logits was made with
`texts SmolLM2-135M-Instruct.Q4_1.gguf` (SHA-256 of the file is in its header).

Versions: Python 3.11, numpy 2.4.6, gguf 0.19.0, tokenizers as installed (ids only). Seed of `tiny`: 20240601.

Format of a .logits file, little-endian:
  u8[8] "BKLOGITS", u32 version = 1, u32 top, u8[32] SHA-256 of the model's file, u32 texts; then for each
  text u32 n, i32 tokens[n], and per position: f32 log_sum_exp, u32 ids[top], f32 logits[top], both by
  descending logit. Position i is the distribution of token i + 1.
"""
import argparse
import hashlib
import pathlib
import struct

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "model"
TOP = 64
SEED = 20240601


class Model:
    """A llama-architecture GGUF, dequantized."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        reader = gguf.GGUFReader(str(path))
        self.meta = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        self.arch = self.meta["general.architecture"]
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
                  .reshape(tuple(int(d) for d in reversed(t.shape))) for t in reader.tensors}
        get = lambda key, default=None: self.meta.get(f"{self.arch}.{key}", default)
        self.layers = get("block_count")
        self.heads = get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.head_dim = get("attention.key_length", get("embedding_length") // self.heads)
        self.eps = np.float32(get("attention.layer_norm_rms_epsilon"))
        self.theta = get("rope.freq_base", 10000.0)
        self.linear = get("rope.scaling.factor", 1.0)
        self.interleaved = self.arch == "llama"

    def sha256(self):
        return hashlib.sha256(self.path.read_bytes()).digest()

    def norm(self, x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * weight

    def rope(self, x):
        """x [T, heads, head_dim] in the file's row order."""
        half = self.head_dim // 2
        frequency = self.theta ** (-np.arange(half, dtype=np.float64) / half) / self.linear
        if "rope_freqs.weight" in self.w:
            frequency = frequency / self.w["rope_freqs.weight"]
        angle = np.arange(x.shape[0], dtype=np.float64)[:, None, None] * frequency
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        y = np.empty_like(x)
        first, second = ((slice(0, None, 2), slice(1, None, 2)) if self.interleaved
                         else (slice(0, half), slice(half, None)))
        a, b = x[..., first], x[..., second]
        y[..., first], y[..., second] = a * cos - b * sin, a * sin + b * cos
        return y

    def linear_layer(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def attention(self, x, prefix):
        count = x.shape[0]
        q = self.rope(self.linear_layer(x, prefix + "attn_q").reshape(count, self.heads, -1))
        k = self.rope(self.linear_layer(x, prefix + "attn_k").reshape(count, self.kv_heads, -1))
        v = self.linear_layer(x, prefix + "attn_v").reshape(count, self.kv_heads, -1)
        group = self.heads // self.kv_heads
        mask = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        out = np.empty_like(q)
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // group].T / np.float32(self.head_dim) ** 0.5 + mask
            p = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[:, head] = (p / p.sum(axis=-1, keepdims=True)) @ v[:, head // group]
        return out.reshape(count, -1)

    def logits(self, tokens):
        x = self.w["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.layers):
            prefix = f"blk.{layer}."
            h = self.norm(x, self.w[prefix + "attn_norm.weight"])
            x = x + self.linear_layer(self.attention(h, prefix), prefix + "attn_output")
            h = self.norm(x, self.w[prefix + "ffn_norm.weight"])
            gate = self.linear_layer(h, prefix + "ffn_gate")
            up = self.linear_layer(h, prefix + "ffn_up")
            x = x + self.linear_layer(gate / (1 + np.exp(-gate)) * up, prefix + "ffn_down")
        x = self.norm(x, self.w["output_norm.weight"])
        return x @ self.w.get("output.weight", self.w["token_embd.weight"]).T

    def tokenizer(self):
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        tokens = self.meta["tokenizer.ggml.tokens"]
        merges = [tuple(m.split(" ", 1)) for m in self.meta["tokenizer.ggml.merges"]]
        made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        if self.meta["tokenizer.ggml.pre"] == "smollm":
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        made.pre_tokenizer = pre_tokenizers.Sequence(steps)
        made.decoder = decoders.ByteLevel()
        types = self.meta["tokenizer.ggml.token_type"]
        made.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                 for t, kind in zip(tokens, types) if kind == 3])
        return made


def write_logits(model, texts, path):
    total = 0
    with open(path, "wb") as out:
        out.write(b"BKLOGITS" + struct.pack("<II", 1, TOP) + model.sha256())
        out.write(struct.pack("<I", len(texts)))
        for tokens in texts:
            logits = model.logits(tokens)
            out.write(struct.pack("<I", len(tokens)) + np.asarray(tokens, "<i4").tobytes())
            for row in logits:
                order = np.argsort(-row, kind="stable")[:TOP]
                wide = row.astype(np.float64)
                lse = wide.max() + np.log(np.exp(wide - wide.max()).sum())
                out.write(struct.pack("<f", lse) + order.astype("<u4").tobytes()
                          + row[order].astype("<f4").tobytes())
            total += len(tokens)
    print(f"{path}: {len(texts)} texts, {total} positions, {path.stat().st_size} bytes")


class TinyModel:
    """A random model in which every tensor type occurs that Python can make, in a few kilobytes."""

    HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, LAYERS, VOCAB = 64, 256, 4, 2, 32, 4, 320
    # q, k, v, o, gate, up, down of each layer.
    TYPES = [["Q4_1", "Q4_1", "Q4_1", "Q4_1", "Q4_1", "Q4_1", "Q6_K"],
             ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "IQ4_NL", "Q5_1", "Q4_K"],
             ["F32", "F16", "BF16", "F16", "MXFP4", "BF16", "Q5_K"],
             ["Q4_0", "Q8_0", "Q4_0", "Q8_0", "Q5_0", "Q5_0", "Q3_K"]]

    def __init__(self):
        self.rng = np.random.default_rng(SEED)
        self.writer = gguf.GGUFWriter(str(DATA / "tiny.gguf"), "llama")

    def random_blocks(self, kind, rows, cols, rms):
        """Random bits as blocks of a type that `gguf` cannot encode, each block scaled to `rms`."""
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = rows * cols // block
        raw = self.rng.integers(0, 256, (count, size), dtype=np.uint8)
        fields = {"Q6_K": [(208, 1.0)], "Q4_K": [(0, 1.0), (2, 7.5)], "Q5_K": [(0, 1.0), (2, 15.5)],
                  "Q3_K": [(108, 1.0)], "IQ4_NL": [(0, 1.0)]}.get(kind.name)

        def scale(values):
            if fields is None:  # MXFP4: an exponent
                raw[:, 0] = 127 + np.round(np.log2(values)).astype(np.int64)
                return
            for at, factor in fields:
                raw[:, at:at + 2] = (values * factor).astype(np.float16)[:, None].view(np.uint8)

        scale(np.ones(count))
        unit = np.sqrt(np.mean(gguf.quants.dequantize(raw, kind).reshape(count, block) ** 2, axis=1))
        scale(rms / unit * self.rng.uniform(0.75, 1.25, count))
        return raw.reshape(rows, -1)

    def matrix(self, name, type_name, rows, cols, gain):
        kind = gguf.GGMLQuantizationType[type_name]
        rms = gain / np.sqrt(cols)
        if type_name in ("Q6_K", "Q4_K", "Q5_K", "Q3_K", "IQ4_NL", "MXFP4"):
            data = self.random_blocks(kind, rows, cols, rms)
        else:
            values = (self.rng.standard_normal((rows, cols)) * rms).astype(np.float32)
            data = gguf.quants.quantize(values, kind)
        self.writer.add_tensor(name, data, raw_dtype=kind)

    def norm(self, name):
        values = 1 + 0.1 * self.rng.standard_normal(self.HIDDEN)
        self.writer.add_tensor(name, values.astype(np.float32))

    def vocabulary(self):
        plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
        symbols, extra = {}, 0
        for byte in range(256):
            symbols[byte] = chr(byte if byte in plain else 256 + extra)
            extra += byte not in plain
        tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [symbols[b] for b in range(256)]
        merges = []
        words = ["the", "and", "of", "in", "er", "on", "at", "is", "re", "or", "an", "to", "ing", "ed"]
        for word in [symbols[32] + w for w in words] + words:
            for end in range(2, len(word) + 1):
                if word[:end] not in tokens and len(tokens) < self.VOCAB:
                    tokens.append(word[:end])
                    merges.append(f"{word[:end - 1]} {word[end - 1]}")
        while len(tokens) < self.VOCAB:  # unused rows, as real vocabularies have
            tokens.append(f"<|unused_{len(tokens)}|>")
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list(tokens)
        self.writer.add_token_types([3] * 3 + [5 if t.startswith("<|") else 1 for t in tokens[3:]])
        self.writer.add_token_merges(merges)
        self.writer.add_bos_token_id(1)
        self.writer.add_eos_token_id(2)
        self.writer.add_add_bos_token(False)
        self.writer.add_chat_template(
            "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
            "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

    def write(self):
        w = self.writer
        w.add_name("tiny random model")
        w.add_license("apache-2.0")
        w.add_context_length(2048)
        w.add_embedding_length(self.HIDDEN)
        w.add_block_count(self.LAYERS)
        w.add_feed_forward_length(self.FFN)
        w.add_head_count(self.HEADS)
        w.add_head_count_kv(self.KV_HEADS)
        w.add_key_length(self.HEAD_DIM)
        w.add_value_length(self.HEAD_DIM)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(10000.0)
        w.add_rope_dimension_count(self.HEAD_DIM)
        self.vocabulary()
        q, kv = self.HEADS * self.HEAD_DIM, self.KV_HEADS * self.HEAD_DIM
        shapes = [("attn_q", q, self.HIDDEN), ("attn_k", kv, self.HIDDEN),
                  ("attn_v", kv, self.HIDDEN), ("attn_output", self.HIDDEN, q),
                  ("ffn_gate", self.FFN, self.HIDDEN), ("ffn_up", self.FFN, self.HIDDEN),
                  ("ffn_down", self.HIDDEN, self.FFN)]
        self.matrix("token_embd.weight", "Q8_0", self.VOCAB, self.HIDDEN, 3.0)
        for layer, types in enumerate(self.TYPES):
            self.norm(f"blk.{layer}.attn_norm.weight")
            self.norm(f"blk.{layer}.ffn_norm.weight")
            for (name, rows, cols), kind in zip(shapes, types):
                self.matrix(f"blk.{layer}.{name}.weight", kind, rows, cols, 1.2)
        self.norm("output_norm.weight")
        factors = np.concatenate([np.ones(8), np.linspace(1, 8, 8)])  # as Llama 3 stores its scaling
        w.add_tensor("rope_freqs.weight", factors.astype(np.float32))
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny")
    texts = commands.add_parser("texts")
    texts.add_argument("model")
    texts.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    if args.command == "tiny":
        TinyModel().write()
        model = Model(DATA / "tiny.gguf")
        rng = np.random.default_rng(SEED + 1)
        write_logits(model, [rng.integers(0, TinyModel.VOCAB, n).tolist() for n in (1, 7, 40, 90)],
                     DATA / "tiny.logits")
        return
    model = Model(args.model)
    tokenizer = model.tokenizer()
    files = sorted((DATA / "texts").glob("*.txt"))
    write_logits(model, [tokenizer.encode(f.read_text()).ids for f in files], args.out)


if __name__ == "__main__":
    main()
