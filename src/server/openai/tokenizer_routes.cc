#include "server/openai/tokenizer_routes.h"

#include <fmt/format.h>

#include "server/api/answer.h"

namespace bakestone::openai {
namespace {

using api::Fields;
using api::Json;

// The body's model, or the first one when it names none.
api::ModelPtr SelectOptional(const api::Context& context, const http::Request& request,
                             Fields& fields) {
  const auto id = fields.String("model");
  return id ? context.SelectAny(request, *id) : context.First(request);
}

void SendJson(http::Responder& responder, const Json& json) {
  responder.Send({.headers = {}, .body = api::Dump(json)});
}

}  // namespace

void HandleTokenizerInfo(const api::Context& context, const http::Request& request,
                         std::shared_ptr<http::Responder> responder) {
  const api::ModelPtr entry = context.First(request);
  const Model& model = entry->model();
  const Tokenizer& tokenizer = model.tokenizer;
  const auto name = [&](int32_t id) {
    return id < 0 ? Json(nullptr) : Json(std::string(tokenizer.TokenText(id)));
  };
  SendJson(*responder, {{"bos_token", name(tokenizer.bos())},
                        {"eos_token", name(tokenizer.eos())},
                        {"unk_token", name(tokenizer.unk())},
                        {"pad_token", name(tokenizer.pad())},
                        {"vocab_size", tokenizer.vocab_size()},
                        {"chat_template", model.chat_template ? Json(model.chat_template->source())
                                                              : Json(nullptr)}});
}

void HandleTokenize(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr entry = SelectOptional(context, request, fields);
  const std::string prompt = fields.RequiredString("prompt");
  const bool add_special = fields.Bool("add_special_tokens").value_or(true);
  fields.Finish();
  const auto tokens = entry->model().tokenizer.Encode(prompt, {.add_special = add_special});
  SendJson(*responder, {{"count", tokens.size()},
                        {"max_model_len", entry->loop().max_context()},
                        {"tokens", tokens}});
}

void HandleDetokenize(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr entry = SelectOptional(context, request, fields);
  const Tokenizer& tokenizer = entry->model().tokenizer;
  const Json* ids = fields.Find("tokens");
  if (!ids || !ids->is_array()) fields.Bad("tokens", "expected a list of token ids");
  std::vector<int32_t> tokens;
  for (const Json& id : *ids) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size()) {
      fields.Bad("tokens", fmt::format("expected ids from 0 to {}", tokenizer.vocab_size() - 1));
    }
    tokens.push_back(id.get<int32_t>());
  }
  fields.Finish();
  SendJson(*responder, {{"prompt", tokenizer.Decode(tokens, {.render_special = true})}});
}

}  // namespace bakestone::openai
