// From files to samples: token ids and which of them are trained. Texts are cut into pieces at
// paragraph ends; conversations train what the assistant says, found by rendering prefixes with the
// model's own template, so that any template works and none is silently masked to nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/model.h"
#include "train/recipe.h"

namespace bakestone {

struct Sample {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // [tokens]; 1: this token is predicted and learned. Never the first
  int64_t num_trained = 0;
  // Tokens before the first turn (the system prompt): a conversation that is joined to another one
  // with the same lead goes on without repeating it. kStandsAlone: not to be joined.
  int64_t lead = kStandsAlone;

  static constexpr int64_t kStandsAlone = -1;
};

struct Dataset {
  std::vector<Sample> samples;
  int64_t num_tokens = 0, num_trained = 0;
  int64_t num_bytes = 0;         // of the files
  int64_t num_cut = 0;           // samples that were longer than the limit and lost their end
};

// Renders messages to ids with the model's template: engine/chat.h's RenderChat, bound to a model.
using ChatEncoder = std::function<std::vector<int32_t>(const nlohmann::ordered_json& messages,
                                                       bool add_generation_prompt)>;

struct ReadOptions {
  int64_t max_tokens = 512;      // the longest sample
  bool joinable = false;         // find the lead of conversations
};

// Reads one source. Throws kNotFound, or kInvalidArgument naming file, line, expected and found; also
// when nothing in it would be trained.
Dataset ReadDataset(const Model& model, const ChatEncoder& encode_chat, const DataSource& source,
                    const ReadOptions& options);

// One piece of text, cut into samples of at most max_tokens at paragraph, else line, else word ends.
// Every token but the first of a piece is trained. The document's end token closes the last piece.
void AppendText(const Tokenizer& tokenizer, const std::string& text, int64_t max_tokens,
                Dataset* dataset);

// One conversation: trained are the assistant's tokens with the token that ends each turn.
Sample EncodeConversation(const ChatEncoder& encode_chat, const nlohmann::ordered_json& messages,
                          const std::string& where);

// The lead of an encoded conversation: what is missing when the template renders it a second time behind
// itself. kStandsAlone when the assistant does not have the last word. Throws kInvalidArgument when the
// template renders the second time in another way, so that joined tokens would not be what it writes.
int64_t FindLead(const ChatEncoder& encode_chat, const nlohmann::ordered_json& messages,
                 const Sample& sample, const std::string& where);

}  // namespace bakestone
