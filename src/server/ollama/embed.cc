#include "server/ollama/embed.h"

#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "server/api/answer.h"
#include "server/api/embedding_answer.h"
#include "server/ollama/models.h"
#include "server/ollama/options.h"

namespace bakestone::ollama {
namespace {

using api::Fields;
using api::Json;

class EmbedAnswer : public api::EmbeddingAnswer {
 public:
  EmbedAnswer(std::string model, std::shared_ptr<http::Responder> responder)
      : EmbeddingAnswer(std::move(responder)), model_(std::move(model)) {}

 private:
  void Append(int64_t index, std::span<const float> vector, std::string* body) override {
    *body += index == 0 ? fmt::format(R"({{"model":{},"embeddings":[)", api::Dump(model_)) : ",";
    api::AppendNumbers(vector, body);
  }
  void Finish(std::string* body) override {
    const auto total = std::chrono::duration_cast<std::chrono::nanoseconds>(Elapsed()).count();
    *body += fmt::format(R"(],"total_duration":{},"load_duration":0,"prompt_eval_count":{}}})",
                         total, tokens());
  }

  const std::string model_;  // as the client named it
};

// /api/embeddings: one vector and nothing else.
class OlderEmbedAnswer : public api::EmbeddingAnswer {
 public:
  using EmbeddingAnswer::EmbeddingAnswer;

 private:
  void Append(int64_t, std::span<const float> vector, std::string* body) override {
    *body += R"({"embedding":)";
    api::AppendNumbers(vector, body);
  }
  void Finish(std::string* body) override { *body += '}'; }
};

// A text that is longer than the context loses its end, but for the token that the model wants
// there.
std::vector<int32_t> Truncated(std::vector<int32_t> tokens, const api::ModelEntry& model) {
  const auto most = static_cast<size_t>(model.loop().max_context());
  if (tokens.size() <= most) return tokens;
  const int32_t last = tokens.back();
  tokens.resize(most);
  if (model.model().tokenizer.add_eos()) tokens.back() = last;
  return tokens;
}

void CheckOptions(Fields& fields) {
  GenerationRequest unused;  // nothing is drawn
  if (const Json* options = fields.Object("options")) ReadOptions(*options, &unused);
  fields.Ignore({"keep_alive"});
}

}  // namespace

void HandleEmbed(const api::Context& context, const http::Request& request,
                 std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const std::string name = fields.RequiredString("model");
  const api::ModelPtr model = context.SelectEmbedder(request, ServedName(context, name));
  const std::vector<std::string> input = fields.Strings("input", api::kMaxEmbeddedTexts);
  const bool truncate = fields.Bool("truncate").value_or(true);
  api::CheckDimensions(fields, *model);
  CheckOptions(fields);
  fields.Finish();
  std::vector<std::vector<int32_t>> texts;
  for (const std::string& text : input) {
    std::vector<int32_t> tokens = model->model().tokenizer.Encode(text);
    texts.push_back(truncate ? Truncated(std::move(tokens), *model) : std::move(tokens));
  }
  if (input.empty() ||
      (input.size() == 1 && input[0].empty())) {  // Ollama's way to ask for the model to be loaded
    const Json loaded = {{"model", name},
                         {"embeddings", Json::array()},
                         {"total_duration", 0},
                         {"load_duration", 0},
                         {"prompt_eval_count", 0}};
    return responder->Send({.headers = {}, .body = api::Dump(loaded)});
  }
  std::make_shared<EmbedAnswer>(name, std::move(responder))
      ->Start(model, std::move(texts), request);
}

void HandleEmbeddings(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model =
      context.SelectEmbedder(request, ServedName(context, fields.RequiredString("model")));
  const std::string prompt = fields.String("prompt").value_or("");
  CheckOptions(fields);
  fields.Finish();
  if (prompt.empty()) return responder->Send({.headers = {}, .body = R"({"embedding":[]})"});
  std::vector<std::vector<int32_t>> texts = {
      Truncated(model->model().tokenizer.Encode(prompt), *model)};
  std::make_shared<OlderEmbedAnswer>(std::move(responder))->Start(model, std::move(texts), request);
}

}  // namespace bakestone::ollama
