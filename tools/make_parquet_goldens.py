#!/usr/bin/env python3
"""Write tests/data/parquet/rows.parquet and rows.jsonl: a small Parquet file, and each row as the JSON object that
it must be read as.

usage: make_parquet_goldens.py FOLDER       (Python 3.11, pyarrow 26.0.1; the texts are written for this, CC0-1.0)

The columns are of the kinds that hubs' data sets have: texts (plain, large, as a dictionary), lists of structs,
numbers, and one that most rows lack. Two row groups, compressed as pyarrow does by itself (Snappy).
"""
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.int32())])
SCHEMA = pa.schema([
    ("messages", pa.list_(MESSAGE)),
    ("topic", pa.dictionary(pa.int32(), pa.string())),
    ("note", pa.large_string()),
    ("score", pa.float64()),
    ("number", pa.int64()),
    ("good", pa.bool_()),
])


def row(i):
    messages = [{"role": "user", "content": f"Which tide is number {i}?"},
                {"role": "assistant", "content": f"Tide {i}: \u00ab{'neap' if i % 2 else 'spring'}\u00bb.\nIt turns."}]
    if i == 3:
        messages[0]["weight"] = 0
    made = {"messages": messages, "topic": ["tides", "boats"][i % 2]}
    if i == 2:
        made["note"] = "a \"quoted\" note, \u6f6e"
    made |= {"score": i / 4, "number": i * 10**12, "good": i % 3 == 0}
    return made


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = [row(i) for i in range(5)]
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as out:
        for made in rows:
            out.write(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "rows.parquet", row_group_size=3)


main()
