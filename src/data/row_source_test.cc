#include "data/row_source.h"

#include <gmock/gmock.h>
#include <zlib.h>
#include <zstd.h>

#include "data/byte_source.h"
#include "data/test_files.h"

namespace bakestone {
namespace {

using ::bakestone::testing::MessageOf;
using ::bakestone::testing::WriteTestFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Rows as "number:bytes", those that cannot be read as "number!problem".
std::vector<std::string> RowsOf(const std::filesystem::path& path, size_t text_row = kMaxTextRow) {
  std::vector<std::string> rows;
  const auto source = RowSource::Open(path, text_row);
  RawRow row;
  while (source->Next(&row)) {
    rows.push_back(std::to_string(row.number) +
                   (row.problem.empty() ? ":" + row.bytes : "!" + row.problem) +
                   (row.continues ? "..." : ""));
  }
  return rows;
}

std::string Gzip(const std::string& text) {
  std::string out(text.size() + 200, '\0');
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

TEST(RowSource, JsonLinesKeepTheirNumbers) {
  EXPECT_THAT(RowsOf(WriteTestFile("a.jsonl", "\xEF\xBB\xBF{\"a\": 1}\r\n\n  \n{\"b\": 2}")),
              ElementsAre("1:{\"a\": 1}", "4:{\"b\": 2}"));
  EXPECT_THAT(
      RowsOf(WriteTestFile("cut.jsonl", "{\"a\": 1}\n{\"b\": \"tw")),
      ElementsAre("1:{\"a\": 1}", "2!the file ends in the middle of this line; it was cut short"));
}

TEST(RowSource, AJsonListIsCutIntoItsElements) {
  EXPECT_THAT(
      RowsOf(WriteTestFile("a.json", " [ {\"a\": \"],\\\"}\"} ,\n {\"b\": [1, {\"c\": 2}]}\n]\n")),
      ElementsAre("1:{\"a\": \"],\\\"}\"} ", "2:{\"b\": [1, {\"c\": 2}]}\n"));
  EXPECT_THAT(RowsOf(WriteTestFile("cut.json", "[{\"a\": 1}, {\"b\": ")),
              ElementsAre("1:{\"a\": 1}",
                          "2!the file ends in the middle of this element; it was cut short"));
  EXPECT_THAT(
      RowsOf(WriteTestFile("cut2.json", "[{\"a\": 1},")),
      ElementsAre("1:{\"a\": 1}", "2!the file ends before the list does; it was cut short"));
}

TEST(RowSource, CsvAsSpreadsheetsWriteIt) {
  EXPECT_THAT(
      RowsOf(WriteTestFile(
          "a.csv", "prompt,completion\r\n\"a, \"\"b\"\"\nc\",d\r\n\r\ne\r\nf,\xC3\xA9\r\n")),
      ElementsAre(R"(2:{"prompt":"a, \"b\"\nc","completion":"d"})",
                  "5!expected 2 fields, as the first line has, found 1",
                  "6:{\"prompt\":\"f\",\"completion\":\"\xC3\xA9\"}"));
  EXPECT_THAT(RowsOf(WriteTestFile("semi.csv", "text;n\na,b;1\n")),
              ElementsAre(R"(2:{"text":"a,b","n":"1"})"));
  EXPECT_EQ(RowSource::Open(WriteTestFile("semi.csv", "text;n\na,b;1\n"))->container(),
            "CSV (semicolons)");
  EXPECT_THAT(RowsOf(WriteTestFile("open.csv", "text\nx\n\"never closed\n")),
              ElementsAre(R"(2:{"text":"x"})",
                          "3!a quote opens here and is not closed before the end of the file"));
  EXPECT_THAT(RowsOf(WriteTestFile("latin.csv", "text\ncaf\xE9\n")).at(0),
              HasSubstr("found byte 0xE9"));
  EXPECT_THAT(MessageOf([] { RowsOf(WriteTestFile("twice.csv", "a,a\n1,2\n")); }),
              HasSubstr("'a' twice"));
}

TEST(RowSource, MarkdownIsCutAtHeadingsAndTextNotAtAll) {
  EXPECT_THAT(RowsOf(WriteTestFile("a.md", "# T\n\n## One\r\nx\n## Two\ny")),
              ElementsAre("1:# T\n\n", "3:## One\r\nx\n", "5:## Two\ny"));
  EXPECT_THAT(RowsOf(WriteTestFile("a.txt", "a\n\n## b\n\nc\n")),
              ElementsAre("1:a\n\n## b\n\nc\n"));
  EXPECT_THAT(RowsOf(WriteTestFile("b.txt", "aaaa\n\nbb\nb\n\ncc\n"), 4),
              ElementsAre("1:aaaa\n\n...", "3:bb\nb\n\n...", "6:cc\n"));
}

TEST(RowSource, CompressedFilesAreRead) {
  const std::string text = "{\"a\": 1}\n{\"b\": 2}\n";
  const auto both = ElementsAre("1:{\"a\": 1}", "2:{\"b\": 2}");
  EXPECT_THAT(RowsOf(WriteTestFile("a.jsonl.gz", Gzip(text))), both);
  EXPECT_THAT(RowsOf(WriteTestFile("b.jsonl.gz", Gzip("{\"a\": 1}\n") + Gzip("{\"b\": 2}\n"))),
              both);
  EXPECT_THAT(RowsOf(WriteTestFile("a.jsonl.zst", Zstd(text))), both);
  EXPECT_EQ(RowSource::Open(WriteTestFile("a.jsonl.zst", Zstd(text)))->container(),
            "JSON lines, zstd");
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, std::string>>{
           {"cut.jsonl.gz", Gzip(text)}, {"cut.jsonl.zst", Zstd(text)}}) {
    const auto path = WriteTestFile(name, bytes.substr(0, bytes.size() - 3));
    EXPECT_THAT(MessageOf([&] { RowsOf(path); }), HasSubstr("cut short"));
  }
}

TEST(RowSource, WhatIsNoTextIsNamedWithTheRemedy) {
  const auto message = [](const char* name, std::string_view bytes) {
    const auto path = WriteTestFile(name, bytes);
    return MessageOf([&] { RowsOf(path); });
  };
  using namespace std::string_view_literals;
  EXPECT_THAT(message("e.txt", ""), HasSubstr("found an empty file"));
  EXPECT_THAT(message("e.gz", Gzip("")), HasSubstr("found an empty file"));
  EXPECT_THAT(message("u.txt", "\xFF\xFEh\0i\0"sv),
              HasSubstr("found UTF-16; convert it: iconv -f UTF-16 "));
  EXPECT_THAT(message("v.txt", "h\0i\0 \0t\0h\0e\0r\0e\0"sv), HasSubstr("iconv -f UTF-16LE"));
  EXPECT_THAT(message("b.jsonl",
                      "\x7F"
                      "ELF\x02\x01\x01\0\0\0"sv),
              HasSubstr("found binary data"));
  EXPECT_THAT(message("l.txt", "one\ncaf\xE9\n"),
              HasSubstr("line 2: expected text in UTF-8, found byte 0xE9 at column 4"));
  EXPECT_THAT(message("x.docx", "hello"), HasSubstr("found '.docx'"));
  EXPECT_THAT(MessageOf([] { RowsOf("/nowhere/x.txt"); }), HasSubstr("cannot open"));
}

TEST(RowSource, ALastLineThatIsTooLongIsNotSaidToBeCutShort) {
  const auto path = WriteTestFile("bomb.jsonl.gz", Gzip(std::string(kMaxRowBytes + 1, 'a')));
  EXPECT_THAT(RowsOf(path), ElementsAre("1!expected a line of at most 64 MiB, found a longer one"));
}

TEST(ReadText, GivesTextAndRefusesWhatIsNone) {
  const auto message = [](const char* name, std::string_view bytes) {
    const auto path = WriteTestFile(name, bytes);
    return MessageOf([&] { ReadText(path, 1000); });
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(ReadText(WriteTestFile("mark.txt", "\xEF\xBB\xBFone\r\ncaf\xC3\xA9\n")),
            "one\r\ncaf\xC3\xA9\n");
  EXPECT_EQ(ReadText(WriteTestFile("packed.txt.gz", Gzip("one\n"))), "one\n");
  EXPECT_THAT(message("empty.txt", ""), HasSubstr("found an empty file"));
  EXPECT_THAT(message("wide.txt", "\xFF\xFEh\0i\0"sv), HasSubstr("found UTF-16"));
  EXPECT_THAT(message("photo.jpg", "\xFF\xD8\xFF\xE0\0\x10JFIF"sv), HasSubstr("binary data"));
  EXPECT_THAT(message("latin.txt", "one\ncaf\xE9\n"),
              HasSubstr("found byte 0xE9 at offset 7 (Latin-1"));
  EXPECT_THAT(message("long.txt", std::string(1001, 'a')), HasSubstr("at most 1000 bytes"));
}

TEST(LineReader, LongLinesAreCutAndSaidToBe) {
  std::string text(600'000, 'x');
  text.append("\nshort\n");
  auto source = ByteSource::Open(WriteTestFile("long.txt", text));
  LineReader lines(*source, 1000);
  LineReader::Line line;
  ASSERT_TRUE(lines.Next(&line));
  EXPECT_TRUE(line.too_long);
  EXPECT_EQ(line.text.size(), 1000u);
  ASSERT_TRUE(lines.Next(&line));
  EXPECT_EQ(line.text, "short");
  EXPECT_FALSE(lines.Next(&line));
}

}  // namespace
}  // namespace bakestone
