#!/usr/bin/env python3
"""Makes tests/data/rwkv_tokenizer/: a small vocabulary in the form of RWKV's world models, and the ids of every STEPth line
of tests/data/tokenizer/corpus.jsonl by the rule itself: at each place the longest token that the text goes on with, found by
trying every length (no trie).

  rwkv_vocab_v20230424.txt   the vocabulary, as it lies beside the models' weights
  vocabulary.gguf            the same as converters write it: escaped tokens, two that nothing uses behind them
  corpus.ids                 a line a text

Run: python3 tools/make_rwkv_tokenizer_goldens.py. Versions: Python 3.11, gguf 0.19.0. No library has a say in the ids.
"""
import collections
import json
import pathlib

import gguf

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "rwkv_tokenizer"
LEARNED = 900
STEP = 4


def corpus():
    for line in (ROOT / "tests/data/tokenizer/corpus.jsonl").read_text().split("\n")[:-1]:
        value = json.loads(line)
        yield value.encode() if isinstance(value, str) else bytes.fromhex(value["hex"])


def vocabulary(texts):
    """All bytes, then the pieces of 2 to 12 bytes that save most."""
    counts = collections.Counter()
    for text in texts:
        for size in range(2, 13):
            counts.update(text[at:at + size] for at in range(len(text) - size + 1))
    best = sorted(counts, key=lambda piece: (-(len(piece) - 1) * counts[piece], piece))[:LEARNED]
    awkward = [b"\n\n", b"\t\t", b"'\"", b"\\\\", b"\"'\"", "\u2028".encode(), "\U0001F600".encode(), b"\xf0\x9f", b" '", b"\x00\x00"]
    return [bytes([b]) for b in range(256)] + sorted(set(best + awkward), key=lambda piece: (len(piece), piece))


def literal(token):
    try:
        return ascii(token.decode()) if token == "\u2028".encode() else repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    texts = list(corpus())
    tokens = vocabulary(texts)
    ids = {token: id for id, token in enumerate(tokens, start=1)}
    (OUT / "rwkv_vocab_v20230424.txt").write_text(
        "".join(f"{id} {literal(token)} {len(token)}\n" for token, id in ids.items()), encoding="utf-8")
    longest, lines = max(map(len, tokens)), []
    for text in texts[::STEP]:
        at, found = 0, []
        while at < len(text):
            size = next(size for size in range(min(longest, len(text) - at), 0, -1) if text[at:at + size] in ids)
            found.append(ids[text[at:at + size]])
            at += size
        lines.append(" ".join(map(str, found)))
    (OUT / "corpus.ids").write_text("\n".join(lines) + "\n")
    writer = gguf.GGUFWriter(str(OUT / "vocabulary.gguf"), "rwkv7")
    writer.add_tokenizer_model("rwkv")
    unused = [f"[PAD{id}]".encode() for id in range(len(tokens) + 1, len(tokens) + 3)]
    writer.add_token_list([b"<s>"] + [repr(token)[2:-1].encode() for token in tokens] + unused)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.UNUSED] * 2)
    writer.add_uint32("tokenizer.ggml.eot_token_id", ids[b"\n\n"])
    writer.add_string("tokenizer.chat_template", "rwkv-world")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    print(f"{len(tokens)} tokens, {sum(map(len, texts[::STEP])) / sum(len(l.split()) for l in lines):.2f} bytes a token")


if __name__ == "__main__":
    main()
