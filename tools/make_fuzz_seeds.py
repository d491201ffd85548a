#!/usr/bin/env python3
"""Makes fuzz/corpus/gguf, safetensors, tokenizer and data: small valid files, so that fuzzing starts behind
the first checks. Byte by byte with struct and json: needs nothing but Python. No randomness."""
import gzip
import json
import pathlib
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
U8, U32, F32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9
# Type id, weights per block, bytes per block.
TYPES = [(0, 1, 4), (1, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34),
         (10, 256, 84), (11, 256, 110), (12, 256, 144), (13, 256, 176), (14, 256, 210), (20, 32, 18),
         (23, 256, 136), (24, 1, 1), (25, 1, 2), (26, 1, 4), (27, 1, 8), (28, 1, 8), (30, 1, 2),
         (39, 32, 17)]


DATA_ROWS = [
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]},
                  {"role": "assistant", "content": None, "weight": 1,
                   "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]}], "tools": [{"name": "f"}]},
    {"conversations": [{"from": "human", "value": "h"}, {"from": "function_call", "value": "{\"name\": \"f\"}"}]},
    {"instruction": "i", "input": "", "output": "o", "group": 3},
    {"prompt": "p", "chosen": "c", "rejected": [{"role": "assistant", "content": "r", "train": False}]},
    {"text": "DE89 3704 0044 0532 0130 00 and 4111-1111-1111-1111, 12345678Z, caf\u00e9"},
]


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(string, values))


def gguf(entries, tensors, alignment=32):
    """tensors: (name, ne, type id, bytes)"""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries)
    data = b""
    for name, ne, kind, content in tensors:
        out += string(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, kind, len(data))
        data += content + bytes(-len(content) % alignment)
    return out + bytes(-len(out) % alignment) + data


def every_type():
    return gguf([], [(f"t{kind}", [block, 2], kind, b"\x11" * size * 2)
                     for kind, block, size in TYPES])


def adapter():
    entries = [entry("general.type", STRING, string("adapter")),
               entry("general.architecture", STRING, string("llama")),
               entry("adapter.type", STRING, string("lora")),
               entry("adapter.lora.alpha", F32, struct.pack("<f", 8))]
    ones = struct.pack("<f", 1)
    tensors = [("blk.0.attn_q.weight.lora_a", [8, 2], 0, ones * 16),
               ("blk.0.attn_q.weight.lora_b", [2, 16], 0, ones * 32),
               ("token_embd.weight.lora_a", [2, 5], 0, ones * 10),
               ("token_embd.weight.lora_b", [2, 8], 0, ones * 16)]
    return gguf(entries, tensors)


def tokenizer(model):
    tokens = ["<s>", "</s>", "a", "b", "ab", "<0x0A>"]
    entries = [entry("tokenizer.ggml.model", STRING, string(model)),
               entry("tokenizer.ggml.pre", STRING, string("smollm")),
               entry("tokenizer.ggml.tokens", ARRAY, strings(tokens)),
               entry("tokenizer.ggml.merges", ARRAY, strings(["a b"])),
               entry("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ6f", F32, 6, 0, 0, -1, -2, -1, 0)),
               entry("tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ6i", 5, 6, 3, 3, 1, 1, 1, 6)),
               entry("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 0)),
               entry("tokenizer.ggml.add_bos_token", BOOL, b"\1")]
    return gguf(entries, [])


def nested():
    inner = struct.pack("<IQ2B", U8, 2, 1, 2)
    return gguf([entry("n", ARRAY, struct.pack("<IQ", ARRAY, 2) + inner + inner),
                 entry("general.alignment", U32, struct.pack("<I", 64))], [])


def safetensors(header, data=b""):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def main():
    seeds = {
        "gguf": {"types": every_type(), "adapter": adapter(), "gpt2": tokenizer("gpt2"),
                 "llama": tokenizer("llama"), "t5": tokenizer("t5"), "nested": nested(),
                 "empty": gguf([], [])},
        "safetensors": {
            "empty": safetensors({}),
            "metadata": safetensors({"__metadata__": {"format": "pt", "a": ""}}),
            "two": safetensors({"b": tensor("BF16", [2, 2], 4, 12), "a": tensor("F32", [], 0, 4)},
                               bytes(12)),
            "zero": safetensors({"z": tensor("I64", [0, 3], 0, 0), "u": tensor("U8", [3], 0, 3)},
                                bytes(3))},
        # The first byte chooses the file's ending (fuzz/data_fuzz.cc).
        "data": {
            "jsonl": b"\0" + b"\n".join(json.dumps(row).encode() for row in DATA_ROWS),
            "json": b"\1" + json.dumps(DATA_ROWS).encode(),
            "csv": b"\2prompt,completion\r\n\"a \"\"b\"\"\nc\",d\r\ne,f\r\n",
            "tsv": b"\3text\tgroup\nCall +55 11 91234-5678\t1\nCPF 529.982.247-25\t2\n",
            "md": b"\5# T\n\n## One\nMail ana@example.com\n\n## Two\ny\n",
            "gz": b"\6" + gzip.compress(json.dumps(DATA_ROWS[0]).encode(), mtime=0)},
        # Integers are read from the end: kind, pre-tokenizer, with bytes, tokens...; text from the front.
        "tokenizer": {f"kind{kind}": "ab\\\\<|a|> 12's \u2581\u00e9\U0001f468\u200d".encode() + b"\xff" * 40
                      + bytes([9, 5, 2, 1, 1, 2, 3, 4, 1, 17, kind]) for kind in range(3)},
    }
    for name, files in seeds.items():
        folder = CORPUS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
    for version in (2, 3):
        shutil.copy(ROOT / f"tests/data/gguf/metadata_v{version}.gguf", CORPUS / "gguf" / f"v{version}")


if __name__ == "__main__":
    main()
