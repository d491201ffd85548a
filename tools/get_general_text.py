#!/usr/bin/env python3
"""Write the general English texts that judge what a model forgot, and the replay text.

usage: get_general_text.py FOLDER [--packages FOLDER]

Third-party text is not part of this repository: it comes from Debian 12 packages, named by
version and pinned by SHA-256, whose text is cut out the same way every time.

  general-history.txt  debian-history 2.28, "A Brief History of Debian": modern expository prose.
                       GPL-2.0-or-later. Only measured, never trained on.
  general-devil.txt    dict-devil 1.0-13.1, "The Devil's Dictionary" (Bierce, 1911): literary prose.
                       Public domain. Only measured, never trained on.
  replay-jargon.txt    jargon-text 4.4.7-4.1, "The Jargon File" 4.4.7: informal prose.
                       Public domain. Replayed while training; no part of either text above.

Files that are already there with the right SHA-256 are kept. Needs apt-get and dpkg-deb;
--packages takes the three .deb files from a folder instead of the network.
"""
import argparse
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile

SOURCES = [
    {
        "file": "general-history.txt",
        "sha256": "8a7305abb6f7f8e7924c4b831761791ab208592031936232273a3e55d89ebf66",
        "package": "debian-history", "version": "2.28",
        "deb_sha256": "ae364cdfd075bf6a08ca8f5105b44db7093e3b201c95d3b70a863b8849c6a082",
        "member": "usr/share/doc/debian-history/docs/project-history.en.txt.gz",
        "begin": r"^1\.1\. In the Beginning", "end": r"^Appendix A\. The Debian Manifesto",
        "min_paragraph": 160, "limit": 48000,
    },
    {
        "file": "general-devil.txt",
        "sha256": "c48326077704f8750521a6cce0caccdf8ad76ce545a9639aaae241864a8a5808",
        "package": "dict-devil", "version": "1.0-13.1",
        "deb_sha256": "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154",
        "member": "usr/share/dictd/devil.dict.dz",
        "begin": r"^ABASEMENT, n\.", "end": None,
        "min_paragraph": 120, "limit": 46000,
    },
    {
        "file": "replay-jargon.txt",
        "sha256": "0587cc06c253243fe2154eff7d6503a5e1de535fad59c1a1a6a8ecba39180206",
        "package": "jargon-text", "version": "4.4.7-4.1",
        "deb_sha256": "17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb",
        "member": "usr/share/doc/jargon-text/jargon.txt.gz",
        "begin": r"^\s*Chapter 1\. Hacker Slang and Hacker Culture\s*$", "end": None,
        "min_paragraph": 240, "limit": 400000,
    },
]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def package_bytes(source, folder):
    """The .deb as bytes, from `folder` or from the Debian mirror, its hash checked."""
    name, version = source["package"], source["version"]
    path = os.path.join(folder, f"{name}_{version}_all.deb")
    if not os.path.exists(path):
        command = ["apt-get", "download", "-q", f"{name}={version}"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if run.returncode != 0:  # the package lists may be missing or old
            sudo = [] if os.geteuid() == 0 else ["sudo"]
            subprocess.run([*sudo, "apt-get", "update", "-q"], stdout=sys.stderr, check=False)
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if run.returncode != 0 or not os.path.exists(path):
            sys.exit(f"error: cannot download Debian package {name}={version}:\n{run.stderr.strip()}\n"
                     "Version and hash are those of Debian 12.")
    with open(path, "rb") as file:
        data = file.read()
    if sha256(data) != source["deb_sha256"]:
        sys.exit(f"error: {path}: SHA-256 is {sha256(data)}, expected {source['deb_sha256']}")
    return path


def member_text(deb_path, member):
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb_path], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        raw = archive.extractfile("./" + member).read()
    return gzip.decompress(raw).decode("utf-8").replace("\u00a0", " ").replace("\r", "")


def paragraphs(text, source):
    """Running prose only: lines of a paragraph joined, short ones (headings, lists) dropped."""
    begin = re.search(source["begin"], text, re.M)
    if not begin:
        sys.exit(f"error: {source['package']}: {source['begin']!r} not found in {source['member']}")
    text = text[begin.start():]
    if source["end"]:
        text = text[:re.search(source["end"], text, re.M).start()]
    kept, size = [], 0
    for block in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"\s+", " ", block).strip()
        if len(paragraph) < source["min_paragraph"] or not re.search(r"[.!?\"')]$", paragraph):
            continue
        if size + len(paragraph) > source["limit"]:
            break
        kept.append(paragraph)
        size += len(paragraph) + 2
    return "\n\n".join(kept) + "\n"


def write_whole(path, data):
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--packages", help="folder that holds the .deb files already")
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        for source in SOURCES:
            path = os.path.join(folder, source["file"])
            if os.path.exists(path) and sha256(open(path, "rb").read()) == source["sha256"]:
                print(f"{source['file']}: already there")
                continue
            deb = package_bytes(source, os.path.abspath(args.packages) if args.packages else scratch)
            data = paragraphs(member_text(deb, source["member"]), source).encode("utf-8")
            if sha256(data) != source["sha256"]:
                sys.exit(f"error: {source['file']}: text has SHA-256 {sha256(data)}, "
                         f"expected {source['sha256']}")
            write_whole(path, data)
            print(f"{source['file']}: {len(data)} bytes from {source['package']} {source['version']}")


if __name__ == "__main__":
    main()
