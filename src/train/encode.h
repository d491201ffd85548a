// From rows to samples: token ids and which of them are trained. Texts are cut into pieces at
// paragraph ends; conversations train what the assistant says (and what a row says otherwise),
// found by rendering prefixes with the model's own template, so that any template works and none is
// silently masked to nothing.
//
// Pure functions for any thread; errors are kInvalidArgument, without the place in the file.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/row.h"
#include "text/tokenizer.h"
#include "train/sample_file.h"

namespace bakestone {

// Renders messages to ids with the model's template: engine/chat.h's RenderChat, bound to a model.
// tools: null, or the list of functions that the conversation offers. Must be callable from any
// thread.
using ChatEncoder = std::function<std::vector<int32_t>(const nlohmann::ordered_json& messages,
                                                       bool add_generation_prompt,
                                                       const nlohmann::ordered_json* tools)>;

// One document, cut into samples of at most max_tokens at paragraph, else line, else word ends.
// Every token but the first of a piece is trained. The document's end token closes the last piece,
// unless the document goes on elsewhere.
std::vector<Sample> CutText(const Tokenizer& tokenizer, std::string_view text, int64_t max_tokens,
                            bool continues = false);

// One conversation: trained are the assistant's tokens with the token that ends each turn, and what
// the messages' flags say. tools may be null.
Sample EncodeConversation(const ChatEncoder& encode_chat, const Conversation& chat,
                          const nlohmann::ordered_json* tools);

// The lead of an encoded conversation: what is missing when the template renders it a second time
// behind itself. kStandsAlone when the assistant does not have the last word. Throws when the
// template renders the second time in another way, so that joined tokens would not be what it
// writes.
int64_t FindLead(const ChatEncoder& encode_chat, const nlohmann::ordered_json& messages,
                 const nlohmann::ordered_json* tools, const Sample& sample);

}  // namespace bakestone
