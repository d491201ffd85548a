// Data files of people: the first byte says what the file is called, the rest is the file. A reader
// may refuse with bakestone::Error and nothing else. Whatever row it hands out must say what it
// says in valid UTF-8, have a flag a message, and survive being looked through for personal data,
// quality and likeness.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/byte_source.h"
#include "data/min_hash.h"
#include "data/personal_data.h"
#include "data/quality.h"
#include "data/row_source.h"

namespace {

using namespace bakestone;

void Require(bool fact) {
  if (!fact) abort();
}

void Look(const Row& row) {
  const std::string text = row.AllText();
  Require(FindInvalidUtf8(text) == std::string::npos);
  size_t at = 0;
  const auto findings = FindPersonalData(text);
  for (const PersonalFinding& finding : findings) {
    Require(finding.begin >= at && finding.end > finding.begin && finding.end <= text.size());
    at = finding.end;
  }
  (void)MaskPersonalData(text, findings);
  (void)JudgeQuality(text);
  const auto shingles = Shingles(text);
  Require(Jaccard(shingles, shingles) == 1);
  if (row.kind == RowKind::kText) return;
  Require(row.chat.messages->size() == row.chat.train.size());
  if (row.kind == RowKind::kPreference) {
    Require(row.rejected.messages->size() == row.rejected.train.size());
  }
}

// One file a process and kind, in memory where the machine has /dev/shm.
std::string PathOf(const char* ending) {
  const char* folder = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
  return std::string(folder) + "/bakestone-fuzz-" + std::to_string(getpid()) + ending;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr const char* kEndings[] = {".jsonl", ".json", ".csv",      ".tsv",
                                             ".txt",   ".md",   ".jsonl.gz", ".unknown"};
  if (size == 0) return 0;
  const std::string path = PathOf(kEndings[data[0] % std::size(kEndings)]);
  std::FILE* file = std::fopen(path.c_str(), "wb");
  Require(file != nullptr && std::fwrite(data + 1, 1, size - 1, file) == size - 1);
  std::fclose(file);
  try {
    const auto rows = RowSource::Open(path, 64);
    RawRow raw;
    RowOptions options;
    options.group = "group";
    for (int64_t last = 0; rows->Next(&raw); last = raw.number) {
      Require(raw.number > last || raw.is_text);
      const ParsedRow parsed = ParseRaw(raw, options);
      Require((parsed.row == nullptr) == !parsed.problem.empty());
      if (parsed.row) Look(*parsed.row);
    }
  } catch (const Error&) {
  }
  std::remove(path.c_str());
  return 0;
}
