#!/usr/bin/env python3
"""Makes tests/data/tokenizer/: a corpus, small vocabularies trained on it, and the ids that PyPI's
`tokenizers` (byte-level BPE) and `sentencepiece` (BPE by score, unigram) give for every line.

  corpus.jsonl    one line a text: a JSON string, or {"hex": "..."} where the bytes are not UTF-8
  NAME.json       a vocabulary: the fields of TokenizerSpec by name, types as {type: [ids]}
  NAME.charsmap   its precompiled_charsmap, if any
  NAME.ids        one line a text: ids; or "#" and the FNV-1a 64 hash of the ids as little-endian u32
                  (after the first FULL lines); where the text holds special tokens " | " and the same
                  with them parsed; "-" where the reference cannot take the text
  smollm2.ids     the same for the vocabulary of SmolLM2-135M-Instruct (not committed), whose tokens
                  joined by newlines have the SHA-256 in smollm2.sha256
  VERSIONS        seed and versions

Text that is not UTF-8: `tokenizers` cannot take it (byte-level lines are "-": the test checks that the
bytes round-trip); `sentencepiece` takes bytes and reads each invalid one as U+FFFD, as we do.

Run: python3 tools/make_tokenizer_goldens.py MODEL.gguf. Needs gguf, tokenizers, sentencepiece.
"""
import hashlib
import importlib.metadata
import io
import json
import pathlib
import struct
import sys

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tokenizer_corpus import CODE, SENTENCES, corpus, is_valid

SEED = 20240917
FULL = 300
VOCAB = 1200
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def by_pattern(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "llama-bpe": by_pattern(LLAMA3),
    "qwen2": by_pattern(QWEN2),
    "gpt-4o": by_pattern(GPT4O),
}


def ids_text(ids, index):
    if index < FULL:
        return " ".join(map(str, ids))
    value = 0xCBF29CE484222325
    for byte in b"".join(struct.pack("<I", i) for i in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"#{value:016x}"


def write_ids(name, lines, plain, special):
    rows = []
    for index, line in enumerate(lines):
        ids = plain(line)
        if ids is None:
            rows.append("-")
            continue
        parsed = special(line)
        row = ids_text(ids, index)
        rows.append(row if parsed == ids else f"{row} | {ids_text(parsed, index)}")
    (OUT / f"{name}.ids").write_text("\n".join(rows) + "\n")
    print(f"{name}: {sum(r != '-' for r in rows)} lines, {sum('|' in r for r in rows)} with specials")


def write_tokenizers_ids(name, tok, lines):
    def encode(line, as_text):
        if not is_valid(line):
            return None
        tok.encode_special_tokens = as_text
        return tok.encode(line.decode(), add_special_tokens=False).ids

    write_ids(name, lines, lambda line: encode(line, True), lambda line: encode(line, False))


def write_spec(name, spec):
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    (OUT / f"{name}.json").write_text(text + "\n")


def byte_bpe(name, pre, lines, vocab_size=VOCAB, nfc=False, ignore_merges=False, added=()):
    """Trains a byte-level vocabulary, and adds control tokens and, if given, user-defined ones."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = PRE[pre]
    trained.train_from_iterator(
        [l.decode() for l in lines if is_valid(l)],
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                            show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocab = model["vocab"]
    merges = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
    if ignore_merges:  # words that no merges make, and that are tokens all the same
        for word in ("Ġbakery", "Ġharina", "priceless", "ĠoÃ¹"):
            vocab.setdefault(word, len(vocab))
    tok = Tokenizer(models.BPE(vocab, [tuple(m) for m in merges], ignore_merges=ignore_merges))
    tok.pre_tokenizer = PRE[pre]
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tok.add_tokens(list(added))
    tokens = [tok.id_to_token(i) for i in range(tok.get_vocab_size())]
    first = tokens.index(CONTROL[0])
    spec = {
        "kind": "byte_bpe", "pre_tokenizer": pre, "tokens": tokens,
        "types": {"3": list(range(first, first + 3)), "4": list(range(first + 3, len(tokens)))},
        "merges": [" ".join(m) for m in merges], "nfc": nfc, "ignore_merges": ignore_merges,
        "added": [{"id": tokens.index(a.content), "lstrip": a.lstrip, "rstrip": a.rstrip,
                   "single_word": a.single_word, "normalized": a.normalized} for a in added],
        "bos": first, "eos": first + 2,
    }
    write_spec(name, spec)
    write_tokenizers_ids(name, tok, lines)


def fields(message):
    """The (number, value) pairs of a protocol buffer message; fixed32 and bytes as bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, message[at : at + size]
        at += size


def sentencepiece_model(name, lines, **options):
    # Trained without the lines of rare characters, so that the vocabulary lacks many that the corpus has.
    common = set("".join(SENTENCES + CODE))
    text = [l.decode() for l in lines if is_valid(l) and set(l.decode()) <= common]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, minloglevel=2, num_threads=1,
        **options)
    proto = model.getvalue()
    tokens, scores, types, charsmap = [], [], {}, b""
    normalizer = {}
    for number, value in fields(proto):
        if number == 1:
            piece = dict(fields(value))
            kind = piece.get(3, 1)
            if kind != 1:
                types.setdefault(str(kind), []).append(len(tokens))
            tokens.append(piece[1].decode())
            scores.append(struct.unpack("<f", piece[2])[0])
        elif number == 3:
            normalizer = dict(fields(value))
            charsmap = normalizer.get(2, b"")
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto)
    spec = {
        "kind": options["model_type"], "tokens": tokens, "scores": scores, "types": types,
        "add_space_prefix": bool(normalizer.get(3, 1)), "remove_extra_whitespaces": bool(normalizer.get(4, 1)),
        "byte_fallback": bool(options.get("byte_fallback")),
        "bos": sp.bos_id(), "eos": sp.eos_id(), "unk": sp.unk_id(),
    }
    write_spec(name, spec)
    if charsmap:
        (OUT / f"{name}.charsmap").write_bytes(charsmap)
    write_ids(name, lines, sp.encode, sp.encode)


def smollm2(path, lines):
    reader = gguf.GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = PRE["smollm"]
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, kind in zip(tokens, types) if kind == 3])
    (OUT / "smollm2.sha256").write_text(hashlib.sha256("\n".join(tokens).encode()).hexdigest() + "\n")
    write_tokenizers_ids("smollm2", tok, lines)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    OUT.mkdir(parents=True, exist_ok=True)
    lines = corpus(SEED)
    with open(OUT / "corpus.jsonl", "w") as out:
        for line in lines:
            value = line.decode() if is_valid(line) else {"hex": line.hex()}
            out.write(json.dumps(value, ensure_ascii=False) + "\n")
    byte_bpe("gpt2", "gpt-2", lines)
    byte_bpe("llama3", "llama-bpe", lines, ignore_merges=True)
    byte_bpe("qwen2", "qwen2", lines, nfc=True, added=[
        AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("@word", single_word=True, normalized=False),
        AddedToken("café", normalized=True)])
    byte_bpe("gpt4o", "gpt-4o", lines, vocab_size=600)
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    sentencepiece_model("spm_llama", lines, vocab_size=1800, model_type="bpe", byte_fallback=True, character_coverage=0.98,
                        split_digits=True, **plain)
    sentencepiece_model("spm_gemma", lines, vocab_size=1800, model_type="bpe", byte_fallback=True, add_dummy_prefix=False,
                        allow_whitespace_only_pieces=True, user_defined_symbols=["<table>", "▁▁", "\n\n"],
                        character_coverage=0.98, **plain)
    sentencepiece_model("unigram_nfkc", lines, vocab_size=1050, model_type="unigram", character_coverage=0.98,
                        normalization_rule_name="nmt_nfkc", user_defined_symbols=["<table>"])
    sentencepiece_model("unigram_bytes", lines, vocab_size=1050, model_type="unigram", byte_fallback=True,
                        character_coverage=0.98, **plain)
    smollm2(sys.argv[1], lines)
    versions = [f"{p} {importlib.metadata.version(p)}" for p in ("gguf", "sentencepiece", "tokenizers")]
    (OUT / "VERSIONS").write_text("\n".join(
        ["tools/make_tokenizer_goldens.py", f"seed {SEED}", *versions]) + "\n")


if __name__ == "__main__":
    main()
