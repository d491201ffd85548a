#include "train/recipe_data.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "data/row.h"
#include "train/recipe_tables.h"

namespace bakestone {
namespace {

constexpr const char* kChatMl =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace

std::filesystem::path RecipeFolders::Resolve(const std::string& text) const {
  constexpr std::string_view kCache = "cache:";
  if (text.starts_with(kCache)) return cache / text.substr(kCache.size());
  const std::filesystem::path path(text);
  return path.is_absolute() ? path : (recipe / path).lexically_normal();
}

DataSource ReadDataSource(TomlTable table, const RecipeFolders& folders) {
  DataSource source;
  source.name = table.String("name");
  source.path = folders.Resolve(table.String("path"));
  source.licence = table.String("licence", "");
  source.source = table.String("source", "");
  source.format = table.String("format", source.format);
  if (!ParseRowFormat(source.format)) {
    Throw(ErrorCode::kInvalidArgument, "{}: 'format': expected one of {}, found '{}'",
          table.where(), RowFormatNames(), source.format);
  }
  source.group = table.String("group", "");
  source.columns = table.StringMap("columns");
  for (const auto& [field, column] : source.columns) {
    if (IsRowField(field)) continue;
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'columns': expected fields that formats know ({}), each with its name in the file; "
          "found '{}'",
          table.where(), RowFieldNames(), field);
  }
  source.heldout = table.Number("heldout", 0, 0, 0.9);
  source.weight = table.Number("weight", 1, 0.001, 1000);
  source.duplicates = Choice<DuplicatePolicy>(table, "dedupe",
                                              {{"off", DuplicatePolicy::kKeep},
                                               {"exact", DuplicatePolicy::kExact},
                                               {"near", DuplicatePolicy::kNear}});
  source.personal_data = Choice<PersonalDataPolicy>(table, "pii",
                                                    {{"warn", PersonalDataPolicy::kWarn},
                                                     {"mask", PersonalDataPolicy::kMask},
                                                     {"off", PersonalDataPolicy::kOff}});
  source.overlong = Choice<OverlongPolicy>(
      table, "overlong", {{"cut", OverlongPolicy::kCut}, {"drop", OverlongPolicy::kDrop}});
  source.max_rejected = table.Number("max_rejected", source.max_rejected, 0, 1);
  table.Finish();
  return source;
}

EvalRecipe ReadEval(TomlTable table, const RecipeFolders& folders) {
  EvalRecipe eval;
  const std::string questions = table.String("questions", "");
  if (!questions.empty()) {
    eval.questions = folders.Resolve(questions);
    eval.facts = folders.Resolve(table.String("facts"));
  }
  eval.domain = table.Strings("domain");
  eval.general = table.Strings("general");
  eval.system = table.String("system", "");
  eval.max_tokens = table.Integer("max_tokens", eval.max_tokens, 1, 4096);
  eval.text_tokens = table.Integer("text_tokens", eval.text_tokens, 64, int64_t{1} << 40);
  table.Finish();
  return eval;
}

AddTokensRecipe ReadAddTokens(TomlTable table) {
  AddTokensRecipe tokens;
  tokens.list = table.Strings("list");
  tokens.learn = table.Integer("learn", 0, 1, 100000);
  tokens.from = table.Strings("from");
  if (!tokens.any()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected 'list' with texts or 'learn' with how many to learn, found neither",
          table.where());
  }
  if (!tokens.from.empty() && tokens.learn == 0) {
    Throw(ErrorCode::kInvalidArgument, "{}: 'from': expected only with 'learn'", table.where());
  }
  table.Finish();
  return tokens;
}

ChatRecipe ReadChat(TomlTable table, const RecipeFolders& folders) {
  constexpr int64_t kMaxTemplateBytes = 1 << 20;
  ChatRecipe chat;
  chat.name = table.String("template");
  const bool chatml = chat.name == "chatml";
  if (!chatml && !std::filesystem::is_regular_file(folders.Resolve(chat.name))) {
    Throw(ErrorCode::kNotFound,
          "{}: 'template': expected \"chatml\" or a file with a template in Jinja, found '{}', and "
          "no such file",
          table.where(), chat.name);
  }
  chat.text = chatml ? kChatMl : ReadFile(folders.Resolve(chat.name), kMaxTemplateBytes);
  if (chat.text.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'template': expected a chat template, found an empty file", table.where());
  }
  chat.tokens = table.Strings("tokens");
  if (chatml && chat.tokens.empty()) chat.tokens = {"<|im_start|>", "<|im_end|>"};
  chat.end = chatml ? table.String("end", "<|im_end|>") : table.String("end");
  if (std::find(chat.tokens.begin(), chat.tokens.end(), chat.end) == chat.tokens.end()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'end': expected one of 'tokens', the one that ends a turn, found '{}'",
          table.where(), chat.end);
  }
  table.Finish();
  return chat;
}

WatchRecipe ReadWatch(TomlTable table) {
  WatchRecipe watch;
  watch.domain = table.Strings("domain");
  watch.general = table.Strings("general");
  if (watch.domain.empty() && watch.general.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected 'general' or 'domain' with names of [[data]] tables", table.where());
  }
  watch.tokens = table.Integer("tokens", watch.tokens, 2, int64_t{1} << 30);
  watch.steps = table.Integer("steps", 0, 1, 1 << 30);
  watch.seconds = table.Number("seconds", 0, 0.001, 1e6);
  if (watch.steps > 0 && watch.seconds > 0) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected 'steps' or 'seconds' between two looks, found both", table.where());
  }
  table.Finish();
  return watch;
}

}  // namespace bakestone
