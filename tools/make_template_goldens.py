#!/usr/bin/env python3
"""Makes tests/data/chat/*.json: what jinja2, in the settings of Hugging Face, says to our templates and to
several hundred small ones. Run it from anywhere after a change of the inputs:

    tools/make_template_goldens.py

It also writes the seeds of fuzz/template_fuzz.cc and its dictionary. Needs jinja2 (versions are written into the files). No randomness; the time is fixed."""
import json
import pathlib
import platform
import sys

import jinja2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import chat_oracle  # noqa: E402
import template_contexts  # noqa: E402
import template_expressions  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "chat"
FUZZ = FOLDER.parent.parent.parent / "fuzz"
# Results that hold an address, or are not values of a template at all.
UNSTABLE = (" at 0x", "<generator", "<function", "<class", "<built-in", "<bound method", "<Template", "reverseiterator")


def golden(source, context):
    text, error = chat_oracle.render(source, context)
    if text is not None and any(mark in text for mark in UNSTABLE):
        return {"error": "not a value that can be written"}
    return {"error": error} if text is None else {"text": text}


def write(name, head, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    head = json.dumps({"versions": f"Python {platform.python_version()}, jinja2 {jinja2.__version__}",
                       "now": chat_oracle.NOW, **head}, ensure_ascii=False)
    (FOLDER / name).write_text(f'{head[:-1]},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{name}: {len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


def write_fuzz_inputs():
    """Each of our templates, and the small ones in bundles; the words of the language as a dictionary."""
    seeds = FUZZ / "corpus" / "template"
    seeds.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.jinja"):
        (seeds / path.stem).write_bytes(path.read_bytes())
    env = chat_oracle.environment()
    small = [case for case in template_expressions.cases() if golden(case, template_expressions.VARIABLES).get("text")]
    for i in range(0, len(small), 12):
        (seeds / f"small_{i // 12:02}").write_text("\n".join(small[i:i + 12]), encoding="utf-8", newline="\n")
    words = ["{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", "{{-", "-}}", "namespace(", "range(", "raise_exception(", "loop.",
             "strftime_now(", "endfor", "endif", "endset", "endmacro", "endcall", "endfilter", "endraw", "elif", " recursive ",
             "messages", "content", "role", "tool_calls", "[::-1]", "**", "//", "~", "caller()", "varargs", "kwargs"]
    words += ["|" + name for name in sorted(env.filters)] + [" is " + name for name in sorted(env.tests) if name.isalpha()]
    words += ["." + name + "(" for name in dir(str) + dir(dict) + dir(list) if not name.startswith("_")]
    words += [tag + " " for tag in ("if", "else", "for", "in", "set", "macro", "call", "filter", "with", "generation", "break", "continue")]
    lines = [json.dumps(word) for word in dict.fromkeys(words)]
    (FUZZ / "template.dict").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    variables = template_expressions.VARIABLES
    cases = [{"source": source, **golden(source, variables)} for source in template_expressions.cases()]
    # jinja2 folds a constant infinity into the name "inf", which Python does not have: not a golden.
    cases = [case for case in cases if not case.get("error", "").startswith("NameError")]
    write("expressions.json", {"context": variables}, cases)
    contexts = template_contexts.contexts()
    write("templates.json", {"contexts": contexts},
          [{"template": path.name, "context": name, **golden(path.read_text(encoding="utf-8"), context)}
           for path in sorted(FOLDER.glob("*.jinja")) for name, context in contexts.items()])
    write_fuzz_inputs()


if __name__ == "__main__":
    main()
