#!/usr/bin/env python3
"""Makes tests/data/classifiers/: for each kind of head that scores texts a tiny random model, as PyPI's `transformers` saves it
(AutoModelForSequenceClassification) and as GGUF with llama.cpp's names, and the logits of `transformers` in float32.

  TYPE/config.json, model.safetensors   the folder; tensors are bf16
  TYPE/model.gguf                       the same; BERT's pooler is `cls`, which converters leave out
  TYPE/golden.safetensors               tokens i32 [T] and types u8 [T] of a pair, logits f32 [labels]

Every tensor is random as in make_family_goldens.py. Run: python3 tools/make_classifier_goldens.py.
Versions: tests/data/families/VERSIONS.
"""
import safetensors.torch
import torch
import transformers

import make_family_goldens as families

OUT = families.OUT.parent / "classifiers"
LENGTH, FIRST = 40, 17  # tokens of a pair, of its first text
# Type -> labels, what differs from the family's settings: one layer where more would make a text's rows alike. GGUF's ModernBERT takes the mean, and the folder says what it takes.
HEADS = {
    "bert": (3, dict(num_hidden_layers=1)),
    "xlm-roberta": (1, dict(num_hidden_layers=1)),
    "modernbert": (3, dict(classifier_pooling="mean", classifier_bias=True)),
    "modernbert_cls": (2, dict(classifier_pooling="cls")),
}
NAMES = {"classifier.dense": "cls", "classifier.out_proj": "cls.output", "pooler.dense": "cls", "classifier": "cls.output",
         "head.dense": "cls", "head.norm": "cls.norm"}


def main():
    families.BERT_NAMES.update(NAMES)
    for name, (labels, more) in HEADS.items():
        folder, kind = OUT / name, name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        arch, settings, _ = families.FAMILIES[kind]
        model = families.make_model(kind, settings | more | dict(num_labels=labels), transformers.AutoModelForSequenceClassification)
        generator = torch.Generator().manual_seed(11)
        tokens = torch.randint(3, model.config.vocab_size, (1, LENGTH), generator=generator)
        types = (torch.arange(LENGTH) >= FIRST).long()[None] * (kind == "bert")
        with torch.no_grad():
            logits = model(input_ids=tokens, **(dict(token_type_ids=types) if kind == "bert" else {})).logits[0]
        safetensors.torch.save_file({"tokens": tokens[0].int(), "types": types[0].to(torch.uint8), "logits": logits.contiguous()},
                                    folder / "golden.safetensors")
        if name != "modernbert_cls":
            families.write_encoder_gguf(model, arch, folder / "model.gguf")
        model.to(torch.bfloat16).save_pretrained(folder)
        print(f"{name}: logits {[round(x, 3) for x in logits.tolist()]}")


if __name__ == "__main__":
    main()
