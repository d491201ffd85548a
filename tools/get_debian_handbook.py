#!/usr/bin/env python3
"""Write the Debian Administrator's Handbook in another language as Markdown, for examples/portugues.

usage: get_debian_handbook.py FOLDER [--language pt-BR|id-ID] [--packages FOLDER]

Third-party text is not part of this repository: it comes from Debian 12's package debian-handbook
11.20220922 (GPL-2.0-or-later or CC-BY-SA-3.0), pinned by SHA-256, and is cut out the same way every
time: one document a "##" section; running prose only. What the translators left in English is dropped: a
paragraph that the English edition has too, or with more of the little words of English than of its own.

  handbook-pt-BR.md   Brazilian Portuguese
  handbook-id-ID.md   Indonesian

A file that is already there with the right SHA-256 is kept.
"""
import argparse
import html.parser
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile

import get_general_text

PACKAGE = {"package": "debian-handbook", "version": "11.20220922",
           "deb_sha256": "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa"}
SHA256 = {
    "pt-BR": "8fc9e983898d3a392e8ab6c65c994deff44dc19128a652abc2244c50d1408251",
    "id-ID": "e893bf5f890597c7445af46f623aceae4c84156f0ae7a2b49deb3fcf5e998c38",
}
ROOT = "./usr/share/doc/debian-handbook/html/"
SKIPPED = {"pre", "table", "script", "head"}
SKIPPED_CLASSES = {"toc", "docnav", "index", "mediaobject", "footnotes"}
BLOCKS = {"div", "p", "li", "dt", "dd", "ul", "ol", "dl", "h1", "h2", "h3", "h4", "h5", "br"}
LITTLE_WORDS = {
    "en-US": "the of and to is in that for are with as this it be by on can which or an",
    "pt-BR": "o a de e que do da em um uma para os as com por no na é não ao se ou são dos das mais",
    "id-ID": "yang dan di dari untuk dengan ini itu pada adalah dalam tidak dapat ke oleh atau sebuah akan",
}
MIN_PARAGRAPH = 60  # characters: shorter ones are labels and list items without a sentence


class Handbook(html.parser.HTMLParser):
    """One page as (kind, text) pairs, kind being "h2", "h3" or "p"."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks, self.words, self.kind = [], [], "p"
        self.open, self.skip_at = [], None

    def flush(self, kind="p"):
        text = re.sub(r"\s+", " ", "".join(self.words)).strip()
        if text:
            self.blocks.append((self.kind, text))
        self.words, self.kind = [], kind

    def handle_starttag(self, tag, attrs):
        classes = set(dict(attrs).get("class", "").split())
        if tag in BLOCKS:
            heading = tag in {"h1", "h2", "h3", "h4", "h5"} or (tag == "p" and "title" in classes)
            self.flush(("h2" if tag in {"h1", "h2"} else "h3") if heading else "p")
        if tag in {"br", "img", "meta", "link", "hr", "col", "input"}:
            return
        self.open.append(tag)
        if self.skip_at is None and (tag in SKIPPED or classes & SKIPPED_CLASSES):
            self.skip_at = len(self.open)

    def handle_endtag(self, tag):
        if tag in BLOCKS:
            self.flush()
        while self.open:
            last = self.open.pop()
            if self.skip_at is not None and len(self.open) < self.skip_at:
                self.skip_at = None
            if last == tag:
                break

    def handle_data(self, data):
        if self.skip_at is None:
            self.words.append(data)


def pages(archive, language):
    names = sorted(name for name in archive.getnames()
                   if name.startswith(ROOT + language + "/") and name.endswith(".html"))
    for name in names:
        if name.endswith("/index.html"):
            continue
        parser = Handbook()
        parser.feed(archive.extractfile(name).read().decode("utf-8").replace("\u00a0", " "))
        parser.close()
        parser.flush()
        yield parser.blocks


def is_english(text, language):
    words = re.findall(r"\w+", text.lower())
    count = lambda key: sum(word in LITTLE_WORDS[key].split() for word in words)
    return count("en-US") > count(language)


def markdown(archive, language):
    english = {text for blocks in pages(archive, "en-US") for _, text in blocks}
    out, seen = [], set()
    for blocks in pages(archive, language):
        heading, section = [], []
        for kind, text in blocks:
            if kind == "h2":
                out += section if len(section) > 1 else []
                heading, section = [], ["## " + text]
            elif kind == "h3":
                heading = ["### " + text]
            elif (len(text) >= MIN_PARAGRAPH and text not in english and text not in seen and section
                  and not is_english(text, language)):
                section += heading + [text]
                heading = []
                seen.add(text)
        out += section if len(section) > 1 else []
    return "\n\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--language", choices=sorted(SHA256), default="pt-BR")
    parser.add_argument("--packages", help="folder that holds the .deb file already")
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)
    os.makedirs(folder, exist_ok=True)
    name = f"handbook-{args.language}.md"
    path, wanted = os.path.join(folder, name), SHA256[args.language]
    if os.path.exists(path):
        with open(path, "rb") as file:
            if get_general_text.sha256(file.read()) == wanted:
                print(f"{name}: already there")
                return
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        deb = get_general_text.package_bytes(
            PACKAGE, os.path.abspath(args.packages) if args.packages else scratch)
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
            data = markdown(archive, args.language).encode("utf-8")
    found = get_general_text.sha256(data)
    if found != wanted:
        sys.exit(f"error: {name}: text has SHA-256 {found}, expected {wanted}")
    get_general_text.write_whole(path, data)
    print(f"{name}: {len(data)} bytes from {PACKAGE['package']} {PACKAGE['version']}")


if __name__ == "__main__":
    main()
