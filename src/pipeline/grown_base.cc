#include "pipeline/grown_base.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/sha256.h"
#include "convert/add_tokens.h"
#include "data/source_plan.h"
#include "format/gguf_tokenizer.h"
#include "pipeline/data_record.h"
#include "text/chat/template.h"

namespace bakestone {
namespace {

constexpr const char* kKey = "bakestone.add_tokens.key";
constexpr const char* kFirst = "bakestone.add_tokens.first";
constexpr const char* kCount = "bakestone.add_tokens.count";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr int64_t kLeast =
    10;  // times that a pair must be there: a token that is seldom there is not learned
constexpr size_t kShown = 12;  // new tokens, to people

std::vector<std::string> SourcesOf(const Recipe& recipe) {
  if (!recipe.add_tokens.from.empty()) return recipe.add_tokens.from;
  return recipe.stages.front().data;
}

std::string KeyOf(const Recipe& recipe, const std::filesystem::path& model) {
  Sha256 sha;
  sha.Update("tokens 2|" + ToHex(HashOfFile(model)) + fmt::format("|{}", recipe.add_tokens.learn));
  for (const std::string& text : recipe.add_tokens.list) {
    sha.Update(fmt::format("|{}:", text.size()) + text);
  }
  if (recipe.chat.any()) {
    sha.Update(fmt::format("|chat {} {}:", recipe.chat.end, recipe.chat.text.size()) +
               recipe.chat.text);
    for (const std::string& text : recipe.chat.tokens) sha.Update("|" + text);
  }
  if (recipe.add_tokens.learn > 0) {
    for (const std::string& name : SourcesOf(recipe)) sha.Update(SourceKey(recipe.Source(name)));
  }
  return ToHex(sha.Finish());
}

// What the template writes and the base lacks, then the recipe's list.
std::vector<std::string> GivenTokens(const Recipe& recipe, const TokenizerSpec& spec) {
  std::vector<std::string> given;
  const Tokenizer tokenizer(spec);
  for (const std::string& text : recipe.chat.tokens) {
    if (!tokenizer.Find(text)) given.push_back(text);
  }
  given.insert(given.end(), recipe.add_tokens.list.begin(), recipe.add_tokens.list.end());
  return given;
}

LearnedMerges LearnFrom(const Recipe& recipe, const TokenizerSpec& spec,
                        const std::vector<std::string>& given, ThreadPool& pool) {
  MergeLearner learner(WithTokens(spec, {given, {}}));
  for (const std::string& name : SourcesOf(recipe)) {
    const DataSource& source = recipe.Source(name);
    SourcePlan plan;
    if (NeedsPlan(source)) {
      plan = PlanSource(source, {.pool = &pool, .scratch = {}, .progress = {}});
    }
    ForEachBlock(source, &pool, [&](RowBlock& block) {
      for (size_t i = 0; i < block.rows.size(); ++i) {
        const auto index = static_cast<size_t>(block.first) + i;
        if (!block.rows[i].row || (!plan.fates.empty() && plan.fates[index] != RowFate::kTrain)) {
          continue;
        }
        learner.Add(block.rows[i].row->AllText());
      }
    });
  }
  return learner.Learn(recipe.add_tokens.learn, kLeast);
}

// A terminal must not obey what a file says.
std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

// The template, its end of a turn, and its tokens as what only a template can write.
void AddChat(const ChatRecipe& chat, const TokenizerSpec& spec, GrownModel* grown) {
  std::vector<std::string> tokens = spec.tokens;
  std::vector<int32_t> types;
  for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
  types.resize(tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  for (auto& [key, value] : grown->notes) {
    if (key == "tokenizer.ggml.tokens") tokens = std::get<std::vector<std::string>>(value);
    if (key == kTypes) types = std::get<std::vector<int32_t>>(value);
  }
  std::erase_if(grown->notes, [](const MetadataNote& note) { return note.first == kTypes; });
  int32_t end = -1;
  for (const std::string& text : chat.tokens) {
    const auto found = std::find(tokens.begin(), tokens.end(), text);
    BAKESTONE_CHECK(found != tokens.end());
    types[static_cast<size_t>(found - tokens.begin())] = static_cast<int32_t>(TokenType::kControl);
    if (text == chat.end) end = static_cast<int32_t>(found - tokens.begin());
  }
  grown->notes.emplace_back(kTypes, std::move(types));
  grown->notes.emplace_back("tokenizer.ggml.eot_token_id", end);
  grown->notes.emplace_back("tokenizer.chat_template", chat.text);
}

std::vector<std::string> LinesOf(const Recipe& recipe, const Tokenizer& tokenizer,
                                 bool had_template, const std::vector<std::string>& given,
                                 const LearnedMerges& learned) {
  std::vector<std::string> lines;
  if (recipe.chat.any()) {
    const size_t added = given.size() - recipe.add_tokens.list.size();
    lines.push_back(fmt::format("chat template {}{}; {} of its {} control tokens are new",
                                recipe.chat.name,
                                had_template ? " in place of the base's" : ", which the base lacks",
                                added, recipe.chat.tokens.size()));
  }
  if (!recipe.add_tokens.list.empty()) {
    lines.push_back(fmt::format("{} new tokens given", recipe.add_tokens.list.size()));
  }
  if (recipe.add_tokens.learn == 0) return lines;
  std::vector<std::string> shown;
  for (const LearnedMerge& merge : learned.merges) {
    if (shown.size() == kShown) break;
    shown.push_back("'" + Printable(tokenizer.Decode(merge.pieces)) + "'");
  }
  lines.push_back(fmt::format("{} new tokens learned from {}: {}{}", learned.merges.size(),
                              fmt::join(SourcesOf(recipe), ", "), fmt::join(shown, " "),
                              learned.merges.size() > kShown ? " ..." : ""));
  lines.push_back(
      fmt::format("its text takes {} tokens instead of {} ({:+.1f} %)", learned.tokens_after,
                  learned.tokens_before,
                  100.0 * (static_cast<double>(learned.tokens_after) /
                               static_cast<double>(std::max<int64_t>(1, learned.tokens_before)) -
                           1)));
  return lines;
}

}  // namespace

GrownBase GrowBase(const Recipe& recipe, const std::filesystem::path& model,
                   const std::filesystem::path& file, const KernelTable& kernels, ThreadPool& pool,
                   const std::function<void(int64_t done, int64_t total)>& progress) {
  if (std::filesystem::is_directory(model)) {
    Throw(
        ErrorCode::kUnsupported,
        "{}: expected a GGUF file as base to add tokens to, found a folder (bakestone export makes "
        "a file of it)",
        model.string());
  }
  const std::string key = KeyOf(recipe, model);
  GrownBase grown{.model = file};
  if (std::filesystem::exists(file)) {
    const GgufFile there = GgufFile::Open(file);
    if (there.GetString(kKey, "") == key) {
      grown.first_new = there.GetI32(kFirst);
      grown.num_new = there.GetI32(kCount);
      return grown;
    }
  }
  const ModelSource base = OpenGgufSource(model);
  const TokenizerSpec spec = FromGguf(*base.header);
  if (recipe.chat.any()) chat::ChatTemplate::Parse(recipe.chat.text, recipe.chat.name);
  const std::vector<std::string> given = GivenTokens(recipe, spec);
  LearnedMerges learned;
  if (recipe.add_tokens.learn > 0) learned = LearnFrom(recipe, spec, given, pool);
  grown.num_new = static_cast<int64_t>(given.size() + learned.merges.size());
  GrownModel with{.source = base, .notes = {}};
  if (grown.num_new > 0) with = AddTokens(base, {given, learned.merges}, kernels, pool);
  if (recipe.chat.any()) AddChat(recipe.chat, spec, &with);
  QuantizePlan plan = PlanLike(with.source, base);
  WriteOptions write{.importance = {}, .notes = std::move(with.notes), .progress = {}};
  write.notes.emplace_back(kKey, key);
  write.notes.emplace_back(kFirst, static_cast<int32_t>(with.first_new));
  write.notes.emplace_back(kCount, static_cast<int32_t>(grown.num_new));
  write.progress = [&](int64_t done, int64_t total, const std::string&) { progress(done, total); };
  WriteQuantized(with.source, plan, file, kernels, pool, write);
  grown.first_new = with.first_new;
  grown.lines =
      LinesOf(recipe, Tokenizer(spec), base.header->Has("tokenizer.chat_template"), given, learned);
  return grown;
}

}  // namespace bakestone
