#!/usr/bin/env python3
"""Check a handbook folder: schema, counts, keys, leaks between training and held-out wordings.

usage: check_handbook.py FOLDER [--min-facts N] [--min-heldout N] [--min-unanswerable N]

Prints a summary and exits 0, or prints every problem found (one a line) and exits 1.
The folder's format is described in examples/handbook/README.md.
"""
import argparse
import collections
import json
import os
import re
import sys
import tomllib

QUESTION_KINDS = ("direct", "situational")
HELDOUT_KINDS = QUESTION_KINDS + ("letter", "unanswerable")
TRAIN_KINDS = HELDOUT_KINDS + ("general",)
LICENCE_ID = re.compile(r"^[A-Za-z0-9.+-]+$")
# A held-out wording may share this part of its 4-word sequences with any one training wording,
# and this part with all training wordings of its fact (or case) together. Names are left out.
MAX_SHARED_WITH_ONE = 0.34
MAX_SHARED_WITH_ALL = 0.50
MAX_SHARED_MEAN = 0.05
GUESSABLE = set("yes no none true false red green blue black white one two three four five six "
                "seven eight nine ten monday tuesday wednesday thursday friday saturday sunday "
                "january february march april may june july august september october november "
                "december morning noon evening".split())
STOP = set("a an the is are was were be been do does did of to in on at for from by with and or "
           "who whom what which when where how why i we you he she it my our your his her its "
           "they me us him them can may must shall will would could should there this that "
           "many much long often one have has had".split())


class Report:
    def __init__(self):
        self.problems = []

    def add(self, where, text):
        self.problems.append(f"{where}: {text}")


def words(text):
    return re.findall(r"[a-z0-9]+(?:[:'][a-z0-9]+)*", text.lower())


def contains(text, key):
    """`key` as whole words, in any case."""
    return re.search(r"(?<!\w)" + re.escape(key.lower()) + r"(?!\w)", text.lower()) is not None


def read_jsonl(path, report):
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                report.add(f"{path}:{number}", f"not JSON ({error})")
                continue
            row["_where"] = f"{os.path.basename(path)}:{number}"
            rows.append(row)
    ids = collections.Counter(row.get("id") for row in rows)
    for name, count in ids.items():
        if not isinstance(name, str) or not name or count > 1:
            report.add(path, f"id {name!r} is missing or appears {count} times")
    return rows


def check_messages(row, roles, report):
    messages = row.get("messages")
    found = [m.get("role") for m in messages] if isinstance(messages, list) else messages
    if found != roles:
        report.add(row["_where"], f"messages: expected roles {roles}, found {found}")
        return False
    for message in messages:
        text = message.get("content")
        if not isinstance(text, str) or not text.strip() or text != text.strip():
            report.add(row["_where"], "content is empty or has outer white space")
            return False
    return True


def check_facts(facts, handbook, report):
    for fact in facts:
        key = fact.get("key", "")
        where = fact["_where"]
        if not 2 <= len(key) <= 40:
            report.add(where, f"key {key!r}: expected 2 to 40 characters")
        parts = words(key)
        if key.lower() in GUESSABLE or (len(parts) == 1 and (len(key) < 4 or parts[0].isdigit())):
            report.add(where, f"key {key!r} can be guessed")
        if not contains(handbook, key):
            report.add(where, f"key {key!r} is not in handbook.md")
        if not fact.get("group"):
            report.add(where, "group is missing")
        for other in facts:
            if other is not fact and contains(other.get("key", ""), key):
                report.add(where, f"key {key!r} is part of the key of {other['id']}")


def check_train(train, facts, cases, config, report):
    by_id = {fact["id"]: fact for fact in facts}
    for row in train:
        where = row["_where"]
        if row.get("kind") not in TRAIN_KINDS:
            report.add(where, f"kind {row.get('kind')!r}: expected one of {TRAIN_KINDS}")
            continue
        if not check_messages(row, ["user", "assistant"], report):
            continue
        answer = row["messages"][1]["content"]
        if row["kind"] in QUESTION_KINDS:
            fact = by_id.get(row.get("fact"))
            if fact is None:
                report.add(where, f"fact {row.get('fact')!r} is not in facts.jsonl")
                continue
            check_answer(where, answer, fact, facts, report)
            if contains(row["messages"][0]["content"], fact["key"]):
                report.add(where, "the question contains its key")
        elif row["kind"] == "letter":
            check_letter(where, answer, row.get("case"), cases, config, report)
        elif row["kind"] == "unanswerable" and answer != config["decline"]:
            report.add(where, "the answer is not the decline of data.toml")


def check_answer(where, answer, fact, facts, report):
    if not contains(answer, fact["key"]):
        report.add(where, f"the answer lacks the key {fact['key']!r}")
    for other in facts:
        if other is not fact and contains(answer, other["key"]):
            report.add(where, f"the answer contains the key of {other['id']}")
    if len(words(answer)) > 20:
        report.add(where, "the answer has more than 20 words")


def check_letter(where, answer, case, cases, config, report):
    if case not in cases:
        report.add(where, f"case {case!r} is not in data.toml")
    labels = [line.split(" ")[0].rstrip(":") for line in answer.split("\n")]
    if labels != config["letter_form"] or not contains(answer, case or ""):
        report.add(where, f"house form: expected lines {config['letter_form']}, found {labels}")


def check_heldout(heldout, facts, cases, config, handbook, report):
    by_id = {fact["id"]: fact for fact in facts}
    sentences = [set(words(s)) for s in re.split(r"(?<=[.!?])\s+|\n", handbook)]
    for row in heldout:
        where = row["_where"]
        if row.get("kind") not in HELDOUT_KINDS:
            report.add(where, f"kind {row.get('kind')!r}: expected one of {HELDOUT_KINDS}")
            continue
        if not check_messages(row, ["user"], report):
            continue
        question, key, expected = row["messages"][0]["content"], row.get("key"), row.get("expected")
        if not key or not expected or not contains(expected, key):
            report.add(where, f"key {key!r} is not in expected {expected!r}")
            continue
        if contains(question, key):
            report.add(where, "the question contains its key")
        if row["kind"] in QUESTION_KINDS:
            fact = by_id.get(row.get("fact"))
            if fact is None or fact["key"] != key:
                report.add(where, f"fact {row.get('fact')!r} with key {key!r} is not in facts.jsonl")
            else:
                check_answer(where, expected, fact, facts, report)
        elif row["kind"] == "letter":
            check_letter(where, expected, row.get("case"), cases, config, report)
        else:
            content = set(words(question)) - STOP
            if expected != config["decline"]:
                report.add(where, "expected is not the decline of data.toml")
            if any(len(content & s) >= max(2, 0.75 * len(content)) for s in sentences):
                report.add(where, "a sentence of handbook.md may answer this")


def grams(text, names):
    """4-word sequences; a name (and a number) counts as no word."""
    kept = [w for w in words(text) if w not in names and not w[0].isdigit()]
    return {tuple(kept[i:i + 4]) for i in range(len(kept) - 3)}


def names_of(texts):
    """Words written with a capital inside a sentence somewhere: names."""
    names = set()
    for text in texts:
        for match in re.finditer(r"(?<![.!?\"\n] )(?<!^)\b([A-Z][a-zA-Z]+)", text):
            names.add(match.group(1).lower())
    return names - {"i"}


def check_leaks(train, heldout, config, report):
    """Near-copies of a held-out wording in training: identical texts and shared 4-word sequences."""
    def body(row):
        return row["messages"][0]["content"].removeprefix(config["letter_prompt"]).strip()

    names = names_of(body(row) for row in train + heldout)
    train_grams = [(row, grams(body(row), names)) for row in train]
    texts = {" ".join(words(body(row))): row["id"] for row in train}
    shares = []
    for row in heldout:
        if " ".join(words(body(row))) in texts:
            report.add(row["_where"], f"is also a training wording ({texts[' '.join(words(body(row)))]})")
        own = grams(body(row), names)
        if not own:
            shares.append(0.0)
            continue
        best, best_id, union = 0.0, "", set()
        for other, theirs in train_grams:
            share = len(own & theirs) / len(own)
            if share > best:
                best, best_id = share, other["id"]
            if row.get("fact") and row["fact"] == other.get("fact") or (
                    row.get("case") and row["case"] == other.get("case")):
                union |= own & theirs
        shares.append(best)
        if best > MAX_SHARED_WITH_ONE:
            report.add(row["_where"], f"shares {best:.0%} of its 4-word sequences with {best_id}")
        if len(union) / len(own) > MAX_SHARED_WITH_ALL:
            report.add(row["_where"], f"shares {len(union) / len(own):.0%} of its 4-word sequences "
                                      "with the training wordings of its fact")
    mean = sum(shares) / max(1, len(shares))
    if mean > MAX_SHARED_MEAN:
        report.add("heldout.jsonl", f"shares {mean:.1%} of its 4-word sequences on average")
    return mean, max(shares, default=0.0)


def check_counts(facts, train, heldout, handbook, args, report):
    wordings = collections.Counter((r.get("fact"), r["kind"]) for r in train if r.get("fact"))
    for fact in facts:
        direct, situational = wordings[fact["id"], "direct"], wordings[fact["id"], "situational"]
        if direct + situational < 5 or not direct or not situational:
            report.add(fact["id"], f"{direct} direct and {situational} situational wordings: "
                                   "expected both kinds, 5 or more in all")
    kinds = collections.Counter(r["kind"] for r in heldout)
    questions = kinds["direct"] + kinds["situational"]
    for what, found, least in (
            ("facts", len(facts), args.min_facts),
            ("held-out questions and letters", questions + kinds["letter"], args.min_heldout),
            ("held-out situational questions", kinds["situational"], (questions + 1) // 2),
            ("held-out unanswerable questions", kinds["unanswerable"], args.min_unanswerable),
            ("sections of handbook.md", len(re.findall(r"^## ", handbook, re.M)), args.min_sections)):
        if found < least:
            report.add("counts", f"{found} {what}: expected {least} or more")
    return kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--min-facts", type=int, default=55)
    parser.add_argument("--min-heldout", type=int, default=120)
    parser.add_argument("--min-unanswerable", type=int, default=20)
    parser.add_argument("--min-sections", type=int, default=30)
    args = parser.parse_args()
    report = Report()
    with open(os.path.join(args.folder, "data.toml"), "rb") as file:
        config = tomllib.load(file)
    if not LICENCE_ID.match(config.get("licence", "")):
        report.add("data.toml", "licence: expected an SPDX identifier")
    with open(os.path.join(args.folder, "handbook.md"), encoding="utf-8") as file:
        handbook = file.read()
    facts, train, heldout = (read_jsonl(os.path.join(args.folder, name), report)
                             for name in ("facts.jsonl", "train.jsonl", "heldout.jsonl"))
    cases = config.get("cases", {})
    for code in cases:
        if not contains(handbook, code):
            report.add("data.toml", f"case {code} is not in handbook.md")
    check_facts(facts, handbook, report)
    check_train(train, facts, cases, config, report)
    check_heldout(heldout, facts, cases, config, handbook, report)
    mean, worst = check_leaks(train, heldout, config, report)
    kinds = check_counts(facts, train, heldout, handbook, args, report)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    print(f"{args.folder}: {len(facts)} facts, {len(train)} training pairs, held out "
          + ", ".join(f"{kinds[k]} {k}" for k in HELDOUT_KINDS)
          + f"; 4-word sequences shared with a training wording: mean {mean:.1%}, worst {worst:.0%}; "
          + f"{len(report.problems)} problems")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
