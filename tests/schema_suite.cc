// The official JSON-Schema-Test-Suite against answers of a given form:
//
//   schema_suite FOLDER    its files, one a keyword: tests/long/test_schema_suite.sh fetches them
//
// A schema is taken or refused; of one that is taken every instance must fare as the suite says: a
// valid one is an answer that could be written in one of its spellings (orders of members; numbers
// without a needless fraction), an invalid one in none. Formats are asserted here, which the suite
// leaves open. Prints a line a file; fails where a taken schema is not honoured, or fewer than 60 %
// of the files have one that is taken.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxSpellings = 720;

// Every order of members, at every level, but no more than kMaxSpellings.
std::vector<std::string> Spellings(const ordered_json& value) {
  if (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>() &&
      std::fabs(value.get<double>()) <= 9007199254740992.0) {
    return {fmt::format("{}", static_cast<int64_t>(value.get<double>()))};
  }
  if (!value.is_structured()) return {value.dump()};
  std::vector<std::pair<std::string, std::vector<std::string>>> parts;
  for (const auto& [key, part] : value.items()) {
    parts.emplace_back(value.is_object() ? ordered_json(key).dump() + ":" : "", Spellings(part));
  }
  std::vector<size_t> order(parts.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::vector<std::string> all;
  do {
    std::vector<std::string> texts = {value.is_object() ? "{" : "["};
    for (size_t i = 0; i < order.size(); ++i) {
      std::vector<std::string> longer;
      for (const std::string& text : texts) {
        for (const std::string& part : parts[order[i]].second) {
          if (longer.size() < kMaxSpellings) {
            longer.push_back(text + (i > 0 ? "," : "") + parts[order[i]].first + part);
          }
        }
      }
      texts = std::move(longer);
    }
    for (std::string& text : texts) all.push_back(text + (value.is_object() ? "}" : "]"));
  } while (value.is_object() && all.size() < kMaxSpellings &&
           std::next_permutation(order.begin(), order.end()));
  return all;
}

struct Tally {
  int schemas = 0, taken = 0, wrong = 0;
  std::set<std::string> reasons;
};

void TryCase(Grammars& grammars, const std::string& file, const ordered_json& one, Tally* tally) {
  ++tally->schemas;
  std::shared_ptr<const Constraint> constraint;
  try {
    constraint =
        testing::CompileNow(grammars, {GrammarSource::Kind::kJsonSchema, one["schema"].dump()});
  } catch (const Error& error) {
    const std::string text = error.what();
    const size_t begin = text.find("': '");
    tally->reasons.insert(begin == std::string::npos
                              ? "?"
                              : text.substr(begin + 4, text.find('\'', begin + 4) - begin - 4));
    if (error.code() != ErrorCode::kInvalidArgument) ++tally->wrong;
    return;
  }
  ++tally->taken;
  for (const ordered_json& instance : one["tests"]) {
    const auto spellings = Spellings(instance["data"]);
    const bool takes =
        std::any_of(spellings.begin(), spellings.end(),
                    [&](const std::string& text) { return testing::Takes(*constraint, text); });
    if (takes == instance["valid"].get<bool>() || (!takes && file == "format")) continue;
    ++tally->wrong;
    fmt::print("  {}: {}: {}: {} is {}\n", file, one["description"].get<std::string>(),
               instance["description"].get<std::string>(), instance["data"].dump(),
               takes ? "taken" : "not taken");
  }
}

int Main(const std::filesystem::path& folder) {
  if (!GrammarsAreBuilt()) {
    fmt::print("skipped: built without xgrammar\n");
    return 77;
  }
  const auto build = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  Grammars grammars(testing::SharedTestModel()->tokenizer,
                    {.helper = {build / "src/grammar/grammar_helper"}});
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  int some = 0, whole = 0, schemas = 0, taken = 0, wrong = 0;
  for (const auto& path : files) {
    std::ifstream in(path);
    Tally tally;
    for (const ordered_json& one : ordered_json::parse(in)) {
      TryCase(grammars, path.stem(), one, &tally);
    }
    fmt::print("{:<24} {:3} of {:3} schemas taken{}{}\n", path.stem().string(), tally.taken,
               tally.schemas, tally.reasons.empty() ? "" : "; refused for ",
               fmt::join(tally.reasons, ", "));
    some += tally.taken > 0 ? 1 : 0;
    whole += tally.taken == tally.schemas ? 1 : 0;
    schemas += tally.schemas, taken += tally.taken, wrong += tally.wrong;
  }
  const double share = files.empty() ? 0 : 100.0 * some / static_cast<double>(files.size());
  fmt::print(
      "{} of {} files have a schema that is taken ({:.0f} %), of {} all are; {} of {} schemas; {} "
      "instances fared otherwise than the suite says\n",
      some, files.size(), share, whole, taken, schemas, wrong);
  return wrong == 0 && share >= 60 ? 0 : 1;
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: schema_suite FOLDER\n", stderr);
    return 2;
  }
  return bakestone::Main(argv[1]);
}
