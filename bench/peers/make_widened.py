#!/usr/bin/env python3
"""Writes a llama model as the same function in other numbers, f32, for quantize_compare.py.

    bench/peers/make_widened.py MODEL-f32.gguf OUT.gguf --multiple 256 [--seed 1]

Why: the small base model lies on the grid of Q4_1, to which one encoder may return and another not, and its rows of
576 weights fit no K type. Here nothing lies on a grid any more, and every row is a multiple of 256 weights:

* the gains of norms are folded into the matrices behind them (all but the last norm's, whose matrix is the
  embedding too); each channel of values and of the feed-forward's product is scaled by a random factor near 1, and
  what reads it by the inverse;
* the width grows by zeros, evenly spread (the last 8 of each 32 columns, for 576 to 768), heads by heads of zeros.

The zeros take bytes and carry nothing, in the same places for everybody. Needs the packages gguf and numpy.
"""
import argparse
import math

import gguf
import numpy

GROUP = 32


class Widener:
    def __init__(self, reader, multiple, seed):
        self.tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        self.rng = numpy.random.default_rng(seed)
        key = lambda name: reader.get_field("llama." + name).contents()
        self.width, self.layers = key("embedding_length"), key("block_count")
        self.heads, self.kv_heads = key("attention.head_count"), key("attention.head_count_kv")
        self.epsilon = key("attention.layer_norm_rms_epsilon")
        self.head_dim = self.width // self.heads
        self.new_kv = self.kv_heads
        while self.new_heads() * self.head_dim % multiple != 0:
            self.new_kv += 1
        self.new_width = self.new_heads() * self.head_dim
        per_group = self.width * GROUP // self.new_width
        if self.width % per_group != 0 or self.width // per_group * GROUP != self.new_width:
            raise SystemExit(f"expected a width whose zeros spread evenly, found {self.width} to {self.new_width}")
        at = numpy.arange(self.width)
        self.places = at // per_group * GROUP + at % per_group

    def new_heads(self):
        return self.new_kv * self.heads // self.kv_heads

    def spread(self, matrix):
        """[rows, width] to [rows, new_width]."""
        out = numpy.zeros((len(matrix), self.new_width), numpy.float32)
        out[:, self.places] = matrix
        return out

    def more_rows(self, matrix, rows):
        return numpy.concatenate([matrix, numpy.zeros((rows - len(matrix), matrix.shape[1]), numpy.float32)])

    def factors(self, count):
        return numpy.exp(self.rng.normal(0, 0.15, count)).astype(numpy.float32)

    def gains(self, name):
        return self.tensors[name].astype(numpy.float32) * math.sqrt(self.width / self.new_width)

    def layer(self, prefix):
        get = lambda name: self.tensors[f"{prefix}{name}.weight"].astype(numpy.float32)
        attn, ffn = self.gains(prefix + "attn_norm.weight"), self.gains(prefix + "ffn_norm.weight")
        channel = self.factors(self.kv_heads * self.head_dim)
        repeated = numpy.repeat(channel.reshape(self.kv_heads, self.head_dim), self.heads // self.kv_heads, axis=0)
        product = self.factors(get("ffn_up").shape[0])
        out = {"attn_norm": numpy.ones(self.new_width, numpy.float32)}
        out["ffn_norm"] = out["attn_norm"]
        queries, kv_rows = self.new_heads() * self.head_dim, self.new_kv * self.head_dim
        out["attn_q"] = self.more_rows(self.spread(get("attn_q") * attn), queries)
        out["attn_k"] = self.more_rows(self.spread(get("attn_k") * attn), kv_rows)
        out["attn_v"] = self.more_rows(self.spread(get("attn_v") * attn * channel[:, None]), kv_rows)
        output = get("attn_output") / repeated.reshape(-1)
        output = numpy.concatenate([output, numpy.zeros((self.width, queries - output.shape[1]), numpy.float32)], 1)
        out["attn_output"] = self.spread(output.T).T
        out["ffn_gate"] = self.spread(get("ffn_gate") * ffn)
        out["ffn_up"] = self.spread(get("ffn_up") * ffn * product[:, None])
        out["ffn_down"] = self.spread((get("ffn_down") / product).T).T
        return {f"{prefix}{name}.weight": data for name, data in out.items()}

    def all(self):
        out = {"token_embd.weight": self.spread(self.tensors["token_embd.weight"].astype(numpy.float32)),
               "output_norm.weight": self.spread(self.gains("output_norm.weight")[None])[0]}
        for layer in range(self.layers):
            out |= self.layer(f"blk.{layer}.")
        return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--multiple", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.model)
    architecture = reader.get_field("general.architecture").contents()
    if architecture != "llama" or any(tensor.name == "output.weight" for tensor in reader.tensors):
        raise SystemExit(f"expected a llama model with one table for embedding and head, found {architecture}")
    widener = Widener(reader, args.multiple, args.seed)
    changed = {"llama.embedding_length": widener.new_width, "llama.attention.head_count": widener.new_heads(),
               "llama.attention.head_count_kv": widener.new_kv, "llama.attention.layer_norm_rms_epsilon":
               widener.epsilon * widener.width / widener.new_width, "general.file_type": 0}
    writer = gguf.GGUFWriter(args.out, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, changed.get(name, field.contents()), kind, sub_type=sub)
    for name, data in widener.all().items():
        writer.add_tensor(name, numpy.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
