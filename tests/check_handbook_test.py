#!/usr/bin/env python3
"""tools/check_handbook.py accepts both handbooks, which share one recipe, and rejects each kind of damage.

usage: check_handbook_test.py SOURCE_DIR
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib

SOURCE = os.path.abspath(sys.argv[1])
CHECK = os.path.join(SOURCE, "tools", "check_handbook.py")
HANDBOOK = os.path.join(SOURCE, "examples", "handbook")


def check(folder):
    run = subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True)
    return run.returncode, run.stderr


def rows_of(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def question_of(rows, fact, kind):
    return next(r for r in rows if r.get("fact") == fact and r["kind"] == kind)


def leak(folder):
    """A held-out wording with one word changed turns up in training."""
    train, heldout = rows_of(folder, "train.jsonl"), rows_of(folder, "heldout.jsonl")
    source = question_of(heldout, "tool_fine", "situational")["messages"][0]["content"]
    question_of(train, "tool_fine", "situational")["messages"][0]["content"] = source.replace("purse", "wallet")
    return {"train.jsonl": train}, "4-word sequences"


def guessable(folder):
    facts = rows_of(folder, "facts.jsonl")
    facts[0]["key"] = "Tuesday"
    return {"facts.jsonl": facts}, "can be guessed"


def nested_key(folder):
    facts = rows_of(folder, "facts.jsonl")
    facts[0]["key"] = "the " + facts[1]["key"]
    return {"facts.jsonl": facts}, "is part of the key of"


def two_keys(folder):
    train = rows_of(folder, "train.jsonl")
    train[0]["messages"][1]["content"] += " See the heron board."
    return {"train.jsonl": train}, "contains the key of notice_board"


def answered(folder):
    heldout = rows_of(folder, "heldout.jsonl")
    row = next(r for r in heldout if r["kind"] == "unanswerable")
    row["messages"][0]["content"] = "How many hives of other colours are left alone at harvest?"
    return {"heldout.jsonl": heldout}, "may answer this"


def house_form(folder):
    train = rows_of(folder, "train.jsonl")
    row = next(r for r in train if r["kind"] == "letter")
    row["messages"][1]["content"] = row["messages"][1]["content"].replace("\nFrom:", "\nBy:")
    return {"train.jsonl": train}, "house form"


def few(folder):
    return {"heldout.jsonl": rows_of(folder, "heldout.jsonl")[:100]}, "expected 120 or more"


def twice(folder):
    train = rows_of(folder, "train.jsonl")
    return {"train.jsonl": train + train[:1]}, "appears 2 times"


def recipe_of(folder):
    with open(os.path.join(folder, "bake.toml"), "rb") as file:
        recipe = tomllib.load(file)
    del recipe["name"]
    return recipe


def main():
    failures = []
    other = os.path.join(SOURCE, "tests", "handbook2")
    if recipe_of(HANDBOOK) != recipe_of(other):
        failures.append(f"{other}/bake.toml: expected the recipe of {HANDBOOK}, but for the name")
    for folder in (HANDBOOK, other):
        code, errors = check(folder)
        if code != 0:
            failures.append(f"{folder}: expected no problems, found:\n{errors}")
    for damage in (leak, guessable, nested_key, two_keys, answered, house_form, few, twice):
        with tempfile.TemporaryDirectory() as scratch:
            folder = shutil.copytree(HANDBOOK, os.path.join(scratch, "handbook"))
            files, expected = damage(folder)
            for name, rows in files.items():
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
            code, errors = check(folder)
            if code != 1 or expected not in errors:
                failures.append(f"{damage.__name__}: expected exit 1 and {expected!r}, "
                                f"found exit {code} and:\n{errors}")
    if failures:
        sys.exit("\n".join(failures))
    print("2 handbooks pass, 8 kinds of damage are found")


if __name__ == "__main__":
    main()
