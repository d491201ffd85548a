// bakestone tokenize MODEL: text to ids and back.
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "model/model_file.h"
#include "text/tokenizer.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::json;

std::string ReadStdin() {
  return std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
}

bool Flag(const Json& object, const char* key, bool fallback, int64_t line) {
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  if (!found->is_boolean()) {
    Throw(ErrorCode::kInvalidArgument,
          "standard input, line {}: '{}': expected true or false, found {}", line, key,
          found->dump());
  }
  return found->get<bool>();
}

int EncodeLines(const Tokenizer& tokenizer) {
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    const Json object = Json::parse(line, nullptr, false);
    if (!object.is_object() || !object.contains("text") || !object["text"].is_string()) {
      Throw(ErrorCode::kInvalidArgument,
            "standard input, line {}: expected {{\"text\": \"...\"}} with optional \"add_special\" "
            "and "
            "\"parse_special\"",
            number);
    }
    const auto ids =
        tokenizer.Encode(object["text"].get_ref<const std::string&>(),
                         {.add_special = Flag(object, "add_special", true, number),
                          .parse_special = Flag(object, "parse_special", false, number)});
    fmt::print("{}\n", Json(ids).dump());
  }
  return 0;
}

}  // namespace

int Tokenize(const Arguments& arguments) {
  std::string model_name;
  std::optional<std::string> text;
  bool jsonl = false, decode = false, json = false, no_special = false, parse_special = false;
  Flags flags("tokenize",
              "Text to token ids and back. Reads standard input where no text is given.",
              "bakestone tokenize smollm2-135m-instruct \"Hello, world\"");
  flags.Positional("MODEL", &model_name,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.OptionalPositional("TEXT", &text, "The text; with --decode a JSON array of ids");
  flags.Add(
      "--jsonl", &jsonl,
      "Read lines of {\"text\", \"add_special\", \"parse_special\"}, write an array of ids a line");
  flags.Add("--decode", &decode, "Ids to text");
  flags.Add("--no-special", &no_special, "Do not add the tokens that open or close a sequence");
  flags.Add("--parse-special", &parse_special,
            "Read control tokens such as <|im_start|> in the text");
  flags.Add("--json", &json, "Print the ids as one JSON array");
  flags.Parse(arguments);

  const Tokenizer tokenizer(ModelFile::Open(ResolveModel(model_name)).Tokenizer());
  if (jsonl) return EncodeLines(tokenizer);
  const std::string input = text ? *text : ReadStdin();
  if (decode) {
    CheckJsonLevels(input, "--decode");
    const Json ids = Json::parse(input, nullptr, false);
    if (!ids.is_array()) {
      Throw(ErrorCode::kInvalidArgument, "--decode: expected a JSON array of ids, found '{:.60}'",
            input);
    }
    std::vector<int32_t> tokens;
    for (const Json& id : ids) {
      if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size()) {
        Throw(ErrorCode::kInvalidArgument, "--decode: expected ids from 0 to {}, found {}",
              tokenizer.vocab_size() - 1, id.dump());
      }
      tokens.push_back(id.get<int32_t>());
    }
    fmt::print("{}\n", tokenizer.Decode(tokens, {.render_special = true}));
    return 0;
  }
  const auto ids =
      tokenizer.Encode(input, {.add_special = !no_special, .parse_special = parse_special});
  if (json) {
    fmt::print("{}\n", Json(ids).dump());
    return 0;
  }
  for (const int32_t id : ids) fmt::print("{:>8}  {}\n", id, tokenizer.TokenText(id));
  fmt::print(stderr, "{} tokens\n", ids.size());
  return 0;
}

}  // namespace bakestone::cli
