#!/usr/bin/env python3
"""Checks that objects compiled for a newer CPU hold no weak symbol.

usage: check_isa_symbols.py NM OBJECT...

An inline function that such an object emits as a weak symbol could be the copy that the linker keeps
for the whole program, which then dies on an older CPU. Strong symbols cannot: two of one name do not link.
"""

import re
import subprocess
import sys


def check(nm, path):
    lines = subprocess.run([nm, "-C", path], check=True, capture_output=True, text=True).stdout
    problems = []
    for line in lines.splitlines():
        match = re.match(r"^(?:[0-9a-f]+)?\s+([WwVvuC])\s+(.*)$", line)
        if match:
            problems.append(f"{path}: weak symbol '{match[2]}' ({match[1]}): make it always_inline, or put "
                            "it in an anonymous namespace")
    return problems


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    problems = [p for path in sys.argv[2:] for p in check(sys.argv[1], path)]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
