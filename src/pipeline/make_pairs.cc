#include "pipeline/make_pairs.h"

#include <algorithm>
#include <cctype>
#include <unordered_set>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "data/row_source.h"
#include "engine/chat.h"
#include "eval/evaluation.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kQuestionTokens = 48, kAnswerTokens = 80;
constexpr double kSupported = 0.8;  // of the answer's telling words that the passage must have
constexpr double kGivenAway = 0.8;  // of them that the question may not have

// Words in lower case: runs of letters, digits and bytes beyond ASCII.
std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || byte >= 0x80) {
      word += static_cast<char>(std::tolower(byte));
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

bool IsNumber(const std::string& word) {
  return std::isdigit(static_cast<unsigned char>(word[0])) != 0;
}

// Without the endings by which forms of an English word differ.
std::string StemOf(std::string word) {
  if (IsNumber(word)) return word;
  for (const std::string_view ending : {"ing", "ed", "es", "s", "e"}) {
    if (word.size() >= ending.size() + 3 && word.ends_with(ending)) {
      word.erase(word.size() - ending.size());
      break;
    }
  }
  return word;
}

// Those that say something: numbers, and words of four letters and more that are not there for
// grammar.
std::vector<std::string> TellingWords(std::string_view text) {
  static const std::unordered_set<std::string> kGrammar = {
      "when", "what",  "which", "where", "whom",  "whose", "does",  "have",   "this",
      "that", "these", "those", "with",  "from",  "will",  "would", "should", "could",
      "many", "much",  "they",  "them",  "their", "there", "been",  "were"};
  std::vector<std::string> words = WordsOf(text);
  std::erase_if(words, [](const std::string& word) {
    return !IsNumber(word) && (word.size() < 4 || kGrammar.contains(word));
  });
  return words;
}

double ShareIn(const std::vector<std::string>& words, std::string_view text) {
  if (words.empty()) return 1;
  std::unordered_set<std::string> known;
  for (const std::string& word : WordsOf(text)) known.insert(StemOf(word));
  const auto found = std::count_if(words.begin(), words.end(),
                                   [&](const auto& word) { return known.contains(StemOf(word)); });
  return static_cast<double>(found) / static_cast<double>(words.size());
}

// The first line with something on it, without a label such as "Question:" and without quotes.
std::string FirstLine(std::string_view text, std::string_view label) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return "";
  text.remove_prefix(begin);
  text = text.substr(0, text.find('\n'));
  if (text.size() > label.size() && text.starts_with(label)) text.remove_prefix(label.size());
  const auto drop = [](char c) {
    return c == ' ' || c == '"' || c == '*' || c == '\r' || c == '\t';
  };
  while (!text.empty() && drop(text.front())) text.remove_prefix(1);
  while (!text.empty() && drop(text.back())) text.remove_suffix(1);
  return std::string(text);
}

// "count" of them, spread evenly.
std::vector<std::string_view> Spread(const std::vector<std::string_view>& all, int64_t count) {
  const auto size = static_cast<int64_t>(all.size());
  if (size <= count) return all;
  std::vector<std::string_view> some;
  for (int64_t i = 0; i < count; ++i) some.push_back(all[static_cast<size_t>(i * size / count)]);
  return some;
}

class Maker {
 public:
  Maker(const Model& model, Exec& exec, const std::filesystem::path& out)
      : model_(model),
        exec_(exec),
        kept_(out),
        rejected_(std::filesystem::path(out) += ".rejected.jsonl") {}

  void Ask(const Passage& passage, std::string_view sentence, MadePairs* counts) {
    const std::string question =
        FirstLine(Say({{AskFor("The library by the river opens at nine on weekdays."),
                        "When does the library by the river open on weekdays?"},
                       {AskFor("The ceiling of the old chapel was painted in 1821."),
                        "When was the ceiling of the old chapel painted?"},
                       {AskFor("Visitors leave their boots in the wooden box beside the door."),
                        "Where do visitors leave their boots?"}},
                      AskFor(sentence), kQuestionTokens),
                  "Question:");
    const std::string answer =
        FirstLine(Say({{"The library by the river opens at nine on weekdays.\n\nWhen does the "
                        "library by the river open "
                        "on weekdays?",
                        "It opens at nine."},
                       {"Visitors leave their boots in the wooden box beside the door.\n\nWhere do "
                        "visitors leave their "
                        "boots?",
                        "In the wooden box beside the door."}},
                      passage.text + "\n\n" + question, kAnswerTokens),
                  "Answer:");
    std::string reason = JudgePair(passage.text, question, answer);
    if (reason.empty() && IsKnown(question)) reason = "the question was asked before";
    Json row = {
        {"messages",
         {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}}},
        {"source",
         {{"file", passage.file.string()},
          {"line", passage.line},
          {"sentence", std::string(sentence)}}}};
    if (!reason.empty()) row["reason"] = reason;
    (reason.empty() ? kept_ : rejected_)
        .Write(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    ++(reason.empty() ? counts->kept : counts->rejected);
  }

  void Finish() {
    kept_.Commit();
    rejected_.Commit();
  }

 private:
  static std::string AskFor(std::string_view sentence) {
    return fmt::format("Write a question that this sentence answers: {}", sentence);
  }

  // After some examples, from which also small models see what is wanted.
  std::string Say(const std::vector<std::pair<std::string, std::string>>& examples,
                  const std::string& prompt, int64_t max_tokens) {
    Json messages = Json::array();
    for (const auto& [user, assistant] : examples) {
      messages.push_back({{"role", "user"}, {"content", user}});
      messages.push_back({{"role", "assistant"}, {"content", assistant}});
    }
    messages.push_back({{"role", "user"}, {"content", prompt}});
    return AnswerGreedily(model_, nullptr, exec_, RenderChat(model_, messages).tokens, max_tokens);
  }

  bool IsKnown(const std::string& question) {
    const std::vector<std::string> words = WordsOf(question);
    std::string key;
    for (const std::string& word : words) key += word + " ";
    return !known_.insert(key).second;
  }

  const Model& model_;
  Exec& exec_;
  AtomicFile kept_, rejected_;
  std::set<std::string> known_;
};

}  // namespace

std::vector<Passage> ReadPassages(const std::vector<std::filesystem::path>& files, size_t bytes) {
  std::vector<Passage> passages;
  for (const auto& file : files) {
    const auto rows = RowSource::Open(file, bytes);
    if (!rows->is_text()) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: expected a text or Markdown to write questions from, found {}", file.string(),
            rows->container());
    }
    for (RawRow row; rows->Next(&row);) {
      passages.push_back({file, row.number, std::move(row.bytes)});
    }
  }
  return passages;
}

std::vector<std::string_view> SentencesOf(std::string_view text) {
  constexpr size_t kLeastWords = 6;
  std::vector<std::string_view> sentences;
  size_t begin = 0;
  const auto take = [&](size_t end) {
    std::string_view sentence = text.substr(begin, end - begin);
    begin = end;
    const size_t first = sentence.find_first_not_of(" \t\r\n#*->");
    if (first == std::string_view::npos) return;
    sentence.remove_prefix(first);
    sentence = sentence.substr(0, sentence.find_last_not_of(" \t\r\n") + 1);
    if (WordsOf(sentence).size() >= kLeastWords) sentences.push_back(sentence);
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const bool stop =
        (text[i] == '.' || text[i] == '!' || text[i] == '?') &&
        (i + 1 == text.size() || std::isspace(static_cast<unsigned char>(text[i + 1])) != 0);
    const bool paragraph = text[i] == '\n' && i + 1 < text.size() && text[i + 1] == '\n';
    if (stop || paragraph) take(i + 1);
  }
  take(text.size());
  return sentences;
}

std::string JudgePair(std::string_view passage, std::string_view question,
                      std::string_view answer) {
  const size_t asked = WordsOf(question).size(), said = WordsOf(answer).size();
  if (question.empty() || question.back() != '?') {
    return "the question does not end with a question mark";
  }
  if (asked < 3 || asked > 40) {
    return fmt::format("the question has {} words, expected 3 to 40", asked);
  }
  if (said < 1 || said > 60) return fmt::format("the answer has {} words, expected 1 to 60", said);
  static constexpr std::string_view kBesideText[] = {
      "the text",     "this text",     "the passage", "this sentence",
      "the sentence", "the paragraph", "above"};
  std::string lower(question);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const std::string_view words : kBesideText) {
    if (lower.find(words) != std::string::npos) {
      return "the question only makes sense beside the text";
    }
  }
  const std::vector<std::string> telling = TellingWords(answer);
  for (const std::string& word : telling) {
    if (IsNumber(word) && ShareIn({word}, passage) < 1) {
      return fmt::format("the answer says {}, the text does not", word);
    }
  }
  if (ShareIn(telling, passage) < kSupported) {
    return "the answer has words that the text does not have";
  }
  if (!telling.empty() && ShareIn(telling, question) >= kGivenAway) {
    return "the question gives the answer away";
  }
  if (ShareIn(TellingWords(question), passage) < 0.5) {
    return "the question is about something else than the text";
  }
  return "";
}

MadePairs MakePairs(const Model& model, Exec& exec, const std::vector<std::filesystem::path>& files,
                    const std::filesystem::path& out, const MakePairsOptions& options) {
  const std::vector<Passage> passages =
      ReadPassages(files, static_cast<size_t>(options.passage_bytes));
  std::vector<std::vector<std::string_view>> asked;
  int64_t total = 0, done = 0;
  for (const Passage& passage : passages) {
    asked.push_back(Spread(SentencesOf(passage.text), options.per_passage));
    total += static_cast<int64_t>(asked.back().size());
  }
  if (total == 0) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected sentences of six words and more to ask about, found none",
          files.front().string());
  }
  MadePairs counts;
  counts.passages = static_cast<int64_t>(passages.size());
  Maker maker(model, exec, out);
  for (size_t i = 0; i < passages.size(); ++i) {
    for (const std::string_view sentence : asked[i]) {
      if (options.cancelled && options.cancelled()) {
        Throw(ErrorCode::kCancelled, "stopped; nothing was written");
      }
      maker.Ask(passages[i], sentence, &counts);
      if (options.progress) options.progress(++done, total);
    }
  }
  maker.Finish();
  return counts;
}

}  // namespace bakestone
