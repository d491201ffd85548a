#!/usr/bin/env python3
"""Makes tests/data/hf_tokenizer/: small files of the kinds of tokenizer.json that models bring, and what PyPI's
`tokenizers` makes of the lines of tests/data/tokenizer/corpus.jsonl (every STEPth that is UTF-8).

  NAME.json   the tokenizer (xlmr and bge_m3: XLM-R's two forms, the latter with a small map of characters)
  NAME.model  or SentencePiece's own file, with that package's ids alone
  fairseq.model, fairseq.gguf   the same of XLM-R, and as its GGUF files have it, with fairseq's ids between <s> and </s>
  CASES.txt   texts for xlmr and bge_m3 beside those, a JSON string a line; NAME.cases: their ids with special tokens,
              NAME.pairs: ids | types of the 5th to 19th beside the 10th to 24th
  NAME.ids    a line a text: ids as plain text | ids with special tokens parsed and put around | FNV-1a 64 of the
              latter's decoding, specials rendered. Ids are as in make_tokenizer_goldens.py.

Run: python3 tools/make_hf_tokenizer_goldens.py. Versions: Python 3.11, tokenizers 0.23.3,
sentencepiece 0.2.3, gguf 0.19.0.
"""
import contextlib
import io
import json
import pathlib
import tempfile

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import make_tokenizer_goldens as made

STEP = 8
VOCAB = 700
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "hf_tokenizer"
MARK = "\u2581"
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def corpus():
    lines = [json.loads(l) for l in (ROOT / "tests/data/tokenizer/corpus.jsonl").read_text().split("\n")[:-1]]
    return [l for l in lines if isinstance(l, str)]


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def write(name, tok, lines):
    tok.save(str(OUT / f"{name}.json"), pretty=False)
    rows = []
    for index, line in enumerate(lines[::STEP]):
        tok.encode_special_tokens = True
        plain = tok.encode(line, add_special_tokens=False).ids
        tok.encode_special_tokens = False
        parsed = tok.encode(line).ids
        text = tok.decode(parsed, skip_special_tokens=False)
        # Ours strips the space that is put first from the text alone, theirs from whatever comes first.
        rows.append(f"{made.ids_text(plain, STEP * index)} | {made.ids_text(parsed, STEP * index)} | {fnv(text)}")
    (OUT / f"{name}.ids").write_text("\n".join(rows) + "\n")
    print(name, tok.get_vocab_size())


def train(lines, pre, alphabet=(), size=VOCAB):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet),
                                                           show_progress=False))
    model = json.loads(trained.to_str())["model"]
    return list(model["vocab"]), [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]


def byte_level(lines, pre, normalizer=None, ignore_merges=False, post=None, added=()):
    tokens, merges = train(lines, pre, pre_tokenizers.ByteLevel.alphabet())
    if ignore_merges:
        tokens += [t for t in ("Ġbakery", "Ġharina", "priceless") if t not in tokens]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=ignore_merges))
    tok.pre_tokenizer, tok.decoder = pre, decoders.ByteLevel()
    if normalizer:
        tok.normalizer = normalizer
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in made.CONTROL])
    tok.add_tokens(list(added))
    if post:
        tok.post_processor = post(tok)
    return tok


def bos(tok):
    begin = made.CONTROL[0]
    template = processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B",
                                             special_tokens=[(begin, tok.token_to_id(begin))])
    return processors.Sequence([processors.ByteLevel(trim_offsets=True), template])


def spaced(lines, normalizer=None, pre=None, decoder=None, ends=True, added=()):
    """BPE over characters with byte fallback: Llama 2's and Gemma's kind."""
    marked = [l for l in lines if set(l) <= set("".join(made.SENTENCES[:20] + made.CODE))]
    pieces, merges = train(marked, pre_tokenizers.Metaspace(prepend_scheme="always", split=True), size=VOCAB - 259)
    tokens = ["<unk>", "<s>", "</s>"] + BYTES + pieces
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, byte_fallback=True, fuse_unk=True,
                               unk_token="<unk>"))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    tok.decoder = decoder
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    tok.add_tokens(list(added))
    if ends:
        tok.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tok


def trained_model(lines, **options):
    common = set("".join(made.SENTENCES + made.CODE))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([l for l in lines if set(l) <= common]), model_writer=model, minloglevel=2,
        num_threads=1, **options)
    return model


# A map of the size of a test: what NFKC does to a few characters, white space to spaces, and a rule that takes two.
RULES = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "\ufb01": "fi", "\u00bd": "1/2",
         "e\u0301": "\u00e9", "\uff21": "A", "\u2460": "1", "\u2026": "...", "\u00e7": "c\u0327", "1\u20e3": "1"}


def field(message, number):
    """The bytes of the first field of a protobuf message that has the number and a length."""
    def varint(at):
        value = shift = 0
        while True:
            value, shift, at = value | (message[at] & 127) << shift, shift + 7, at + 1
            if message[at - 1] < 128:
                return value, at
    at = 0
    while True:
        key, at = varint(at)
        size, at = varint(at) if key & 7 in (0, 2) else ({1: 8, 5: 4}[key & 7], at)
        if key == number << 3 | 2:
            return message[at:at + size]
        at += 0 if key & 7 == 0 else size


def unigram(name, lines, normalizer, pre, pair, **options):
    """XLM-R's kind: a Unigram model of SentencePiece whose ids are fairseq's."""
    model = trained_model(lines, model_type="unigram", character_coverage=0.99, **options).getvalue()
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    ends = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(t, 0.0) for t in ends] + [(sp.id_to_piece(i), sp.get_score(i)) for i in range(3, len(sp))] + [("<mask>", 0.0)]
    tok = Tokenizer(models.Unigram(pieces, unk_id=3))
    tok.normalizer = normalizer(normalizers.Precompiled(field(field(model, 3), 2)))
    tok.pre_tokenizer, tok.decoder = pre, decoders.Metaspace(prepend_scheme="always")
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "<pad>", "</s>")])
    tok.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)])
    write(name, tok, lines)
    (OUT / f"{name}.cases").write_text("".join(" ".join(map(str, tok.encode(text).ids)) + "\n" for text in CASES))
    tok.encode_special_tokens = True
    pairs = [tok.encode(first, second) for first, second in zip(CASES[4:19], CASES[9:24])]
    (OUT / f"{name}.pairs").write_text("".join(f"{' '.join(map(str, p.ids))} | {' '.join(map(str, p.type_ids))}\n" for p in pairs))


# Clusters of characters that a rule takes whole, or not; white space at the ends and in between; marks; special tokens.
CASES = ["", " ", "  ", "\t", "a", " a", "a ", "  two  words  ", "caf\u00e9", "cafe\u0301", "\ufb01sh", "\ufb01\u0301sh", "e\u0301\u0301",
         "line\r\nline", "line\n\nline\r", "1\u20e3 1", "\u00bd\u0301", "a\u00a0b\u3000c", "zero\u200bwidth", "\u2581marked\u2581words",
         "a \u2581 b", "\uff21\uff22\uff23 \u2460\u2461", "\u0915\u094d\u0937\u093f", "\U0001f1e7\U0001f1f7 \U0001f468\u200d\U0001f469\u200d\U0001f467",
         "a<mask>b", "a <mask> b", "x<s>y</s>", "x<pad>", "\u2026...\u2026", "\u0600" "1", "\ud55c\uae00 \u1112\u1161\u11ab", "\u0000a",
         "\u00e7c\u0327", "\u4f60\u597d\uff0c\u4e16\u754c", "bakery bakery  bakery"]


def fairseq(lines, **options):
    model = trained_model(lines, model_type="unigram", character_coverage=0.99, **options).getvalue()
    (OUT / "fairseq.model").write_bytes(model)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    rows = [made.ids_text([0, *(3 if i == 0 else i + 1 for i in sp.encode(line)), 2], STEP * at) for at, line in enumerate(lines[::STEP])]
    (OUT / "fairseq.ids").write_text("\n".join(rows) + "\n")
    writer = gguf.GGUFWriter(str(OUT / "fairseq.gguf"), "bert")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<s>", "<pad>", "</s>", "<unk>"] + [sp.id_to_piece(i) for i in range(3, len(sp))] + [f"[PAD{len(sp) + 1}]"])
    writer.add_token_scores([0.0] * 4 + [sp.get_score(i) for i in range(3, len(sp))] + [-10000.0])
    writer.add_token_types([3, 3, 3, 2] + [1] * (len(sp) - 3) + [5])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(field(field(model, 3), 2))
    for name, value in dict(bos=0, eos=2, unknown=3, seperator=2, padding=1, cls=0).items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", value)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def sentencepiece_model(name, lines, **options):
    model = trained_model(lines, **options)
    (OUT / f"{name}.model").write_bytes(model.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    rows = [made.ids_text(sp.encode(line), STEP * i) for i, line in enumerate(lines[::STEP])]
    (OUT / f"{name}.ids").write_text("\n".join(rows) + "\n")
    print(name, sp.get_piece_size())


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    lines = corpus()
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    sequence = lambda *steps: pre_tokenizers.Sequence(list(steps))
    write("gpt2", byte_level(lines, gpt2), lines)
    write("starcoder", byte_level(lines, sequence(pre_tokenizers.Digits(individual_digits=True), gpt2)), lines)
    write("llama3", byte_level(lines, made.by_pattern(made.LLAMA3), ignore_merges=True, post=bos), lines)
    write("qwen", byte_level(lines, made.by_pattern(made.QWEN2), normalizers.NFC(), added=[
        AddedToken("<tool_call>", normalized=False), AddedToken("baker", single_word=True, normalized=True),
        AddedToken("[MASK]", lstrip=True, normalized=False)]), lines)
    write("gpt4o", byte_level(lines, made.by_pattern(made.GPT4O)), lines)
    write("punctuation", byte_level(lines, sequence(
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9]{3}"), "isolated"), gpt2)), lines)
    mark = normalizers.Replace(" ", MARK)
    llama = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                               decoders.Strip(" ", 1, 0)])
    write("llama2", spaced(lines, normalizers.Sequence([normalizers.Prepend(MARK), mark]), decoder=llama), lines)
    write("metaspace", spaced(lines, pre=pre_tokenizers.Metaspace(prepend_scheme="first", split=False), decoder=llama,
                              ends=False), lines)
    gemma = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
    write("gemma", spaced(lines, mark, pre_tokenizers.Split(" ", "merged_with_previous"), gemma, ends=False, added=[
        AddedToken("\n\n", normalized=False), AddedToken("<unused0>", normalized=False)]), lines)
    sentencepiece_model("sp_bpe", lines, model_type="bpe", vocab_size=900, byte_fallback=True, character_coverage=0.99,
                        normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_model("sp_unigram", lines, model_type="unigram", vocab_size=700, character_coverage=0.99, bos_id=-1,
                        normalization_rule_name="identity")
    unigram("xlmr", lines, lambda precompiled: precompiled, sequence(
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")), "<s> $A </s> </s> $B </s>", vocab_size=700,
        normalization_rule_name="nmt_nfkc")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # the model holds the path of the rules
        tsv = "rules.tsv"
        pathlib.Path(tsv).write_text("".join("\t".join(" ".join(f"{ord(c):X}" for c in part) for part in rule) + "\n"
                                             for rule in RULES.items()))
        unigram("bge_m3", lines, lambda precompiled: normalizers.Sequence([
            precompiled, normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), MARK)]),
            pre_tokenizers.Metaspace(prepend_scheme="always"), "<s>:0 $A:0 </s>:0 $B:1 </s>:1", vocab_size=700,
            normalization_rule_tsv=tsv)
        fairseq(lines, vocab_size=700, normalization_rule_tsv=tsv)
    (OUT / "CASES.txt").write_text("".join(json.dumps(text) + "\n" for text in CASES))


if __name__ == "__main__":
    main()
