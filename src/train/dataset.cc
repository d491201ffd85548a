#include "train/dataset.h"

#include <algorithm>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxDataBytes = int64_t{4} << 30;

// The token that separates documents: what base models were trained with, else the end of sequence.
int32_t DocumentEnd(const Tokenizer& tokenizer) {
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>"}) {
    if (const auto id = tokenizer.Find(name)) return *id;
  }
  return tokenizer.eos();
}

// Offsets after which a piece may end, best kind first: paragraphs, lines, words.
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

// What a source has given so far.
struct Reading {
  SampleFileWriter writer{std::nullopt};
  DatasetCounts counts;

  void Add(const Sample& sample) {
    counts.tokens += static_cast<int64_t>(sample.tokens.size());
    counts.trained += sample.num_trained;
    writer.Add(sample.View());
  }
  void AddText(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens) {
    for (const Sample& sample : CutText(tokenizer, text, max_tokens)) Add(sample);
  }
};

// One document a section: cut before every heading of the second level.
void AddMarkdown(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens,
                 Reading* reading) {
  while (!text.empty()) {
    const size_t next = text.find("\n## ");
    const size_t size = next == std::string_view::npos ? text.size() : next + 1;
    reading->AddText(tokenizer, text.substr(0, size), max_tokens);
    text.remove_prefix(size);
  }
}

const std::string& Text(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) {
    Throw(ErrorCode::kInvalidArgument, "{}: '{}': expected a text, found {}", where, key,
          found == object.end() ? "nothing" : found->type_name());
  }
  return found->get_ref<const std::string&>();
}

// {"messages": [...]}, {"prompt", "completion"} or {"text"}: one line of a JSONL file.
void AddLine(const Model& model, const ChatEncoder& encode_chat, const Json& line,
             const std::string& where, const ReadOptions& options, Reading* reading) {
  if (!line.is_object()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a JSON object, found {}", where,
          line.type_name());
  }
  if (line.contains("text")) {
    reading->AddText(model.tokenizer, Text(line, "text", where), options.max_tokens);
    return;
  }
  Json messages;
  if (line.contains("messages")) {
    messages = line["messages"];
  } else if (line.contains("prompt")) {
    messages = {{{"role", "user"}, {"content", Text(line, "prompt", where)}},
                {{"role", "assistant"}, {"content", Text(line, "completion", where)}}};
  } else {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected 'messages', or 'prompt' and 'completion', or 'text'; found none of them",
          where);
  }
  Sample sample = EncodeConversation(encode_chat, messages, where);
  if (static_cast<int64_t>(sample.tokens.size()) > options.max_tokens) {
    sample.tokens.resize(static_cast<size_t>(options.max_tokens));
    sample.trained.resize(static_cast<size_t>(options.max_tokens));
    sample.num_trained = std::count(sample.trained.begin(), sample.trained.end(), uint8_t{1});
    ++reading->counts.cut;
  } else if (options.joinable) {
    sample.lead = FindLead(encode_chat, messages, sample, where);
  }
  if (sample.num_trained > 0) reading->Add(sample);
}

}  // namespace

DatasetCounts& DatasetCounts::operator+=(const DatasetCounts& other) {
  tokens += other.tokens;
  trained += other.trained;
  bytes += other.bytes;
  cut += other.cut;
  return *this;
}

Dataset::Dataset(std::shared_ptr<const SampleFile> samples, const DatasetCounts& counts)
    : size_(samples->size()), counts_(counts) {
  parts_.push_back({std::move(samples), 0});
}

SampleView Dataset::At(int64_t index) const {
  BAKESTONE_CHECK(index >= 0 && index < size_);
  const auto after = std::upper_bound(
      parts_.begin(), parts_.end(), index,
      [](int64_t wanted, const Part& part) { return wanted < part.begin; });
  const Part& part = *(after - 1);
  return part.samples->At(index - part.begin);
}

void Dataset::Append(const Dataset& other) {
  for (const Part& part : other.parts_) parts_.push_back({part.samples, size_ + part.begin});
  size_ += other.size_;
  counts_ += other.counts_;
}

std::vector<Sample> CutText(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens) {
  // One token is kept for the document's end.
  std::vector<std::pair<std::string_view, int64_t>> parts;
  SplitToFit(tokenizer, text, max_tokens - 1, 0, &parts);
  const int32_t end = DocumentEnd(tokenizer);
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

Sample EncodeConversation(const ChatEncoder& encode_chat, const Json& messages,
                          const std::string& where) {
  if (!messages.is_array() || messages.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: 'messages': expected a list of messages, found {}",
          where, messages.is_array() ? "an empty one" : messages.type_name());
  }
  for (const Json& message : messages) {
    if (!message.is_object()) {
      Throw(ErrorCode::kInvalidArgument, "{}: 'messages': expected objects, found {}", where,
            message.type_name());
    }
    Text(message, "role", where);
    Text(message, "content", where);
  }
  Sample sample;
  sample.tokens = encode_chat(messages, false, nullptr);
  sample.trained.assign(sample.tokens.size(), 0);
  Json prefix = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (Text(message, "role", where) != "assistant") {
      prefix.push_back(message);
      continue;
    }
    const std::vector<int32_t> before = encode_chat(prefix, true, nullptr);
    prefix.push_back(message);
    const std::vector<int32_t> after = encode_chat(prefix, false, nullptr);
    const bool is_prefix = after.size() <= sample.tokens.size() && before.size() <= after.size() &&
                           std::equal(before.begin(), before.end(), sample.tokens.begin()) &&
                           std::equal(after.begin(), after.end(), sample.tokens.begin());
    if (!is_prefix) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: message {}: the model's chat template renders a conversation's beginning in another "
            "way than the whole (a date, dropped reasoning, or a merge over the border), so what the "
            "assistant says cannot be told from the rest; leave that message out or use another "
            "template", where, i + 1);
    }
    for (size_t t = before.size(); t < after.size(); ++t) sample.trained[t] = 1;
  }
  if (!sample.trained.empty()) sample.trained[0] = 0;
  sample.num_trained = std::count(sample.trained.begin(), sample.trained.end(), uint8_t{1});
  return sample;
}

int64_t FindLead(const ChatEncoder& encode_chat, const Json& messages, const Sample& sample,
                 const std::string& where) {
  if (Text(messages.back(), "role", where) != "assistant") return Sample::kStandsAlone;
  Json twice = messages;
  for (const Json& message : messages) {
    if (Text(message, "role", where) != "system") twice.push_back(message);
  }
  const std::vector<int32_t> tokens = encode_chat(twice, false, nullptr);
  const std::vector<int32_t>& once = sample.tokens;
  const auto lead = static_cast<int64_t>(2 * once.size()) - static_cast<int64_t>(tokens.size());
  if (lead < 0 || lead >= static_cast<int64_t>(once.size()) ||
      !std::equal(once.begin(), once.end(), tokens.begin()) ||
      !std::equal(once.begin() + lead, once.end(),
                  tokens.begin() + static_cast<int64_t>(once.size()))) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: the model's chat template writes a conversation that follows another one in another way "
          "than alone, so conversations cannot be joined; set 'join' to 1", where);
  }
  return lead;
}

Dataset ReadDataset(const Model& model, const ChatEncoder& encode_chat, const DataSource& source,
                    const ReadOptions& options) {
  const std::string contents = ReadFile(source.path, kMaxDataBytes);
  Reading reading;
  reading.counts.bytes = static_cast<int64_t>(contents.size());
  const std::string extension = source.path.extension().string();
  if (extension == ".jsonl") {
    int64_t number = 0;
    for (std::string_view line : SplitAfter(contents, "\n")) {
      ++number;
      if (line.find_first_not_of(" \t\r\n") == std::string_view::npos) continue;
      const std::string where = fmt::format("{}, line {}", source.path.string(), number);
      const Json parsed = Json::parse(line, nullptr, false);
      if (parsed.is_discarded()) {
        Throw(ErrorCode::kInvalidArgument, "{}: expected one JSON object a line, found what is not "
                                           "JSON", where);
      }
      AddLine(model, encode_chat, parsed, where, options, &reading);
    }
  } else if (extension == ".md") {
    AddMarkdown(model.tokenizer, contents, options.max_tokens, &reading);
  } else if (extension == ".txt") {
    reading.AddText(model.tokenizer, contents, options.max_tokens);
  } else {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected a file that ends in .txt, .md or .jsonl, found '{}'", source.path.string(),
          extension);
  }
  if (reading.counts.trained == 0) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected at least one token to learn, found none (no text, or no message of the "
          "assistant within {} tokens)", source.path.string(), options.max_tokens);
  }
  return {reading.writer.Finish(""), reading.counts};
}

}  // namespace bakestone
