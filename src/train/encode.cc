#include "train/encode.h"

#include <algorithm>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

// The token that separates documents: what base models were trained with, else the end of sequence.
int32_t DocumentEnd(const Tokenizer& tokenizer) {
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>"}) {
    if (const auto id = tokenizer.Find(name)) return *id;
  }
  return tokenizer.eos();
}

std::vector<std::string_view> SplitAfter(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t at = text.find(separator);
    const size_t length = at == std::string_view::npos ? text.size() : at + separator.size();
    parts.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return parts;
}

// Parts of at most max_tokens each; a part that is too long is split by the next separator.
void SplitToFit(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens, size_t level,
                std::vector<std::pair<std::string_view, int64_t>>* parts) {
  // After which a piece may end, best kind first: paragraphs, lines, words.
  static constexpr std::string_view kSeparators[] = {"\n\n", "\n", " "};
  const auto count = static_cast<int64_t>(tokenizer.Encode(text, {.add_special = false}).size());
  if (count <= max_tokens) {
    parts->emplace_back(text, count);
    return;
  }
  if (level == std::size(kSeparators)) {
    const size_t half = text.size() / 2;
    SplitToFit(tokenizer, text.substr(0, half), max_tokens, level, parts);
    SplitToFit(tokenizer, text.substr(half), max_tokens, level, parts);
    return;
  }
  const auto pieces = SplitAfter(text, kSeparators[level]);
  for (const std::string_view piece : pieces) {
    SplitToFit(tokenizer, piece, max_tokens, pieces.size() == 1 ? level + 1 : level, parts);
  }
}

Sample MakeTextSample(std::vector<int32_t> tokens) {
  Sample sample;
  sample.trained.assign(tokens.size(), 1);
  if (!tokens.empty()) sample.trained[0] = 0;
  sample.num_trained = std::max<int64_t>(0, static_cast<int64_t>(tokens.size()) - 1);
  sample.tokens = std::move(tokens);
  return sample;
}

bool IsAssistant(const Json& message) { return message.at("role") == "assistant"; }

bool IsTrained(const Json& message, TrainFlag flag) {
  return flag == TrainFlag::kYes || (flag == TrainFlag::kByRole && IsAssistant(message));
}

bool IsPrefix(const std::vector<int32_t>& prefix, const std::vector<int32_t>& whole) {
  return prefix.size() <= whole.size() && std::equal(prefix.begin(), prefix.end(), whole.begin());
}

}  // namespace

std::vector<Sample> CutText(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens,
                            bool continues) {
  // One token is kept for the document's end.
  std::vector<std::pair<std::string_view, int64_t>> parts;
  SplitToFit(tokenizer, text, max_tokens - 1, 0, &parts);
  const int32_t end = continues ? -1 : DocumentEnd(tokenizer);
  std::vector<Sample> samples;
  size_t first = 0;
  while (first < parts.size()) {
    size_t last = first;
    int64_t count = 0;
    while (last < parts.size() && count + parts[last].second <= max_tokens - 1) {
      count += parts[last++].second;
    }
    const char* begin = parts[first].first.data();
    const char* stop = parts[last - 1].first.data() + parts[last - 1].first.size();
    std::vector<int32_t> tokens = tokenizer.Encode(
        std::string_view(begin, static_cast<size_t>(stop - begin)), {.add_special = false});
    if (last == parts.size() && end >= 0) tokens.push_back(end);
    if (tokens.size() > 1) samples.push_back(MakeTextSample(std::move(tokens)));
    first = last;
  }
  return samples;
}

Sample EncodeConversation(const ChatEncoder& encode_chat, const Conversation& chat,
                          const Json* tools) {
  const Json& messages = *chat.messages;
  Sample sample;
  sample.tokens = encode_chat(messages, false, tools);
  sample.trained.assign(sample.tokens.size(), 0);
  Json prefix = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!IsTrained(message, chat.train[i])) {
      prefix.push_back(message);
      continue;
    }
    const std::vector<int32_t> before =
        prefix.empty() ? std::vector<int32_t>() : encode_chat(prefix, IsAssistant(message), tools);
    prefix.push_back(message);
    const std::vector<int32_t> after = encode_chat(prefix, false, tools);
    if (before.size() > after.size() || !IsPrefix(before, sample.tokens) ||
        !IsPrefix(after, sample.tokens)) {
      Throw(ErrorCode::kInvalidArgument,
            "message {}: the model's chat template renders a conversation's beginning in another "
            "way than the "
            "whole (a date, dropped reasoning, or a merge over the border), so what is to be "
            "learned cannot be "
            "told from the rest; leave that message out or use another template",
            i + 1);
    }
    for (size_t t = before.size(); t < after.size(); ++t) sample.trained[t] = 1;
  }
  if (!sample.trained.empty()) sample.trained[0] = 0;
  sample.num_trained = std::count(sample.trained.begin(), sample.trained.end(), uint8_t{1});
  return sample;
}

int64_t FindLead(const ChatEncoder& encode_chat, const Json& messages, const Json* tools,
                 const Sample& sample) {
  if (!IsAssistant(messages.back())) return Sample::kStandsAlone;
  Json twice = messages;
  for (const Json& message : messages) {
    if (message.at("role") != "system") twice.push_back(message);
  }
  const std::vector<int32_t> tokens = encode_chat(twice, false, tools);
  const std::vector<int32_t>& once = sample.tokens;
  const auto lead = static_cast<int64_t>(2 * once.size()) - static_cast<int64_t>(tokens.size());
  if (lead < 0 || lead >= static_cast<int64_t>(once.size()) || !IsPrefix(once, tokens) ||
      !std::equal(once.begin() + lead, once.end(),
                  tokens.begin() + static_cast<int64_t>(once.size()))) {
    Throw(ErrorCode::kInvalidArgument,
          "the model's chat template writes a conversation that follows another one in another way "
          "than alone, "
          "so conversations cannot be joined; set 'join' to 1");
  }
  return lead;
}

}  // namespace bakestone
