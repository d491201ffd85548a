#!/usr/bin/env python3
"""Write tests/data/duplicates/labelled.jsonl: texts, some of which say nearly the same, and which ones.

usage: make_duplicate_goldens.py FOLDER       (seed 1; Python 3.11; from the two sample handbooks, CC0-1.0)

Each line: {"text", "near": index of the earlier line that it repeats, or -1}. A near duplicate is the text of another
line as people copy it: other white space, case or punctuation, a word changed here and there, a sentence added in
front or lost at the end. Not one: another paragraph, one that shares only its first half, one whose sentences say
the same in other words, and a form letter with other particulars.
"""
import json
import pathlib
import random
import re
import sys

R = random.Random(1)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def paragraphs():
    found = []
    for name in ["examples/handbook/handbook.md", "tests/handbook2/handbook.md"]:
        for block in (ROOT / name).read_text().split("\n\n"):
            text = re.sub(r"\s+", " ", block).strip()
            if not text.startswith("#") and len(text.split()) >= 26:
                found.append(text)
    return found


def near(text, other):
    words = text.split()
    kind = R.randrange(6)
    if kind == 0:
        return text.replace(", ", " , ").replace(". ", ".\n")
    if kind == 1:
        return text.upper()
    if kind == 2:  # one word in forty or so
        for i in R.sample(range(len(words)), max(1, len(words) // 40)):
            words[i] = R.choice(["the", "river", "old", "Monday", "seven"])
        return " ".join(words)
    if kind == 3:
        return "Posted by the office. " + text
    if kind == 4:
        return " ".join(words[:-max(1, len(words) // 20)])
    return re.sub(r"[^\w\s]", "", text)


def far(text, other):
    words, others = text.split(), other.split()
    if R.randrange(2):
        return " ".join(words[:len(words) // 2] + others[len(others) // 2:])
    return "Dear member, we write about " + " ".join(R.sample(words, 25)) + ". With kind regards, the office."


def main():
    lines, texts = [], paragraphs()
    R.shuffle(texts)
    for i, text in enumerate(texts):
        other = texts[(i + 1) % len(texts)]
        first = len(lines)
        lines.append({"text": text, "near": -1})
        for _ in range(R.randrange(3)):
            lines.append({"text": near(text, other), "near": first})
        if R.randrange(2):
            lines.append({"text": far(text, other), "near": -1})
    folder = pathlib.Path(sys.argv[1])
    (folder / "labelled.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))


if __name__ == "__main__":
    main()
