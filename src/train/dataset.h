// From files to samples: token ids and which of them are trained. Texts are cut into pieces at
// paragraph ends; conversations train what the assistant says, found by rendering prefixes with the
// model's own template, so that any template works and none is silently masked to nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/model.h"
#include "train/recipe_data.h"
#include "train/sample_file.h"

namespace bakestone {

// What was read, for people and for the record.
struct DatasetCounts {
  int64_t tokens = 0, trained = 0;
  int64_t bytes = 0;             // of the files
  int64_t cut = 0;               // samples that were longer than the limit and lost their end

  DatasetCounts& operator+=(const DatasetCounts& other);
};

// Samples of one or several sources, one after another. Immutable but for Append; any number of threads may
// read it.
class Dataset {
 public:
  Dataset() = default;
  Dataset(std::shared_ptr<const SampleFile> samples, const DatasetCounts& counts);

  int64_t size() const { return size_; }
  SampleView At(int64_t index) const;
  const DatasetCounts& counts() const { return counts_; }
  void Append(const Dataset& other);

 private:
  struct Part {
    std::shared_ptr<const SampleFile> samples;
    int64_t begin = 0;           // index of its first sample
  };
  std::vector<Part> parts_;
  int64_t size_ = 0;
  DatasetCounts counts_;
};

// Renders messages to ids with the model's template: engine/chat.h's RenderChat, bound to a model. tools: null,
// or the list of functions that the conversation offers. Must be callable from any thread.
using ChatEncoder = std::function<std::vector<int32_t>(
    const nlohmann::ordered_json& messages, bool add_generation_prompt,
    const nlohmann::ordered_json* tools)>;

struct ReadOptions {
  int64_t max_tokens = 512;      // the longest sample
  bool joinable = false;         // find the lead of conversations
};

// Reads one source. Throws kNotFound, or kInvalidArgument naming file, line, expected and found; also
// when nothing in it would be trained.
Dataset ReadDataset(const Model& model, const ChatEncoder& encode_chat, const DataSource& source,
                    const ReadOptions& options);

// One document, cut into samples of at most max_tokens at paragraph, else line, else word ends. Every token
// but the first of a piece is trained. The document's end token closes the last piece.
std::vector<Sample> CutText(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens);

// One conversation: trained are the assistant's tokens with the token that ends each turn.
Sample EncodeConversation(const ChatEncoder& encode_chat, const nlohmann::ordered_json& messages,
                          const std::string& where);

// The lead of an encoded conversation: what is missing when the template renders it a second time behind
// itself. kStandsAlone when the assistant does not have the last word. Throws kInvalidArgument when the
// template renders the second time in another way, so that joined tokens would not be what it writes.
int64_t FindLead(const ChatEncoder& encode_chat, const nlohmann::ordered_json& messages,
                 const Sample& sample, const std::string& where);

}  // namespace bakestone
