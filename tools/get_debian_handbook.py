#!/usr/bin/env python3
"""Write the Debian Administrator's Handbook in another language as Markdown, for examples/portugues.

usage: get_debian_handbook.py FOLDER [--language pt-BR|id-ID] [--packages FOLDER]

Third-party text is not part of this repository: it comes from Debian 12's package debian-handbook
11.20220922 (GPL-2.0-or-later or CC-BY-SA-3.0), pinned by SHA-256, and is cut out the same way every
time: one document a "##" section; running prose only. What the translators left in English is dropped: a
paragraph that the English edition has too, or with more of the little words of English than of its own.

  handbook-pt-BR.md           Brazilian Portuguese, without the chapters of the next file
  handbook-pt-BR-heldout.md   chapters 7 and 10 and appendix B: never trained on
  handbook-id-ID.md, handbook-id-ID-heldout.md   the same in Indonesian

Files that are already there with the right SHA-256 are kept.
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
    "pt-BR": ("5f6d20f82b93e51a878018602ebf73621415f2d99fbad2b790350cd7d41c7f32",
              "19a1a6e0a770091ea3e0c095a7ed060f2bd4d1bb7d7826e1ce2f4ab6b2485d7e"),
    "id-ID": ("1c246001e0be0e841b9cf612ac4279b97f0967f68d3cb1738859930c264f72fb",
              "45bb8bd00d307503a1ff133cf06a3064121a150fe5ec617e1af40bccd9621626"),
}
HELD_OUT = {"7", "10", "B"}  # chapters: about an eighth of the text
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


def chapter(heading):
    """Of "## Capítulo 12. ..." or "## 12.1. ...": "12"; of the preface: None."""
    found = re.match(r"## (?:\w+ (\d+|[A-Z])\. |(\d+|[A-Z])\.\d+\. )", heading)
    return found and (found[1] or found[2])


def markdown(archive, language):
    """The documents to train on and those that are held out, as two texts."""
    english = {text for blocks in pages(archive, "en-US") for _, text in blocks}
    sides, seen = ([], []), set()

    def keep(section):
        if len(section) > 1:
            sides[chapter(section[0]) in HELD_OUT].extend(section)

    for blocks in pages(archive, language):
        heading, section = [], []
        for kind, text in blocks:
            if kind == "h2":
                keep(section)
                heading, section = [], ["## " + text]
            elif kind == "h3":
                heading = ["### " + text]
            elif (len(text) >= MIN_PARAGRAPH and text not in english and text not in seen and section
                  and not is_english(text, language)):
                section += heading + [text]
                heading = []
                seen.add(text)
        keep(section)
    return ["\n\n".join(side) + "\n" for side in sides]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--language", choices=sorted(SHA256), default="pt-BR")
    parser.add_argument("--packages", help="folder that holds the .deb file already")
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)
    os.makedirs(folder, exist_ok=True)
    wanted = {f"handbook-{args.language}{part}.md": digest
              for part, digest in zip(("", "-heldout"), SHA256[args.language])}

    def is_there(name):
        path = os.path.join(folder, name)
        return os.path.exists(path) and get_general_text.sha256(open(path, "rb").read()) == wanted[name]

    if all(map(is_there, wanted)):
        print(f"{', '.join(wanted)}: already there")
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        deb = get_general_text.package_bytes(
            PACKAGE, os.path.abspath(args.packages) if args.packages else scratch)
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
            texts = [text.encode("utf-8") for text in markdown(archive, args.language)]
    for (name, digest), data in zip(wanted.items(), texts):
        found = get_general_text.sha256(data)
        if found != digest:
            sys.exit(f"error: {name}: text has SHA-256 {found}, expected {digest}")
        get_general_text.write_whole(os.path.join(folder, name), data)
        print(f"{name}: {len(data)} bytes from {PACKAGE['package']} {PACKAGE['version']}")


if __name__ == "__main__":
    main()
