#include "server/openai/embeddings.h"

#include <utility>

#include <fmt/format.h>

#include "server/api/answer.h"
#include "server/api/api_error.h"
#include "server/api/embedding_answer.h"
#include "server/openai/text_input.h"

namespace bakestone::openai {
namespace {

using api::Fields;
using api::Json;

class OpenAiEmbeddings : public api::EmbeddingAnswer {
 public:
  OpenAiEmbeddings(std::string model, bool base64, std::shared_ptr<http::Responder> responder)
      : EmbeddingAnswer(std::move(responder)), model_(std::move(model)), base64_(base64) {}

 private:
  void Append(int64_t index, std::span<const float> vector, std::string* body) override {
    *body += index == 0 ? R"({"object":"list","data":[)" : ",";
    *body += fmt::format(R"({{"object":"embedding","index":{},"embedding":)", index);
    (base64_ ? api::AppendBase64 : api::AppendNumbers)(vector, body);
    *body += '}';
  }
  void Finish(std::string* body) override {
    const Json usage = {{"prompt_tokens", tokens()}, {"total_tokens", tokens()}};
    *body += fmt::format(R"(],"model":{},"usage":{}}})", api::Dump(model_), api::Dump(usage));
  }

  const std::string model_;
  const bool base64_;
};

}  // namespace

void HandleEmbeddings(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.SelectEmbedder(request, fields.RequiredString("model"));
  const std::string format = fields.String("encoding_format").value_or("float");
  if (format != "float" && format != "base64") {
    fields.Bad("encoding_format", "expected float or base64");
  }
  api::CheckDimensions(fields, *model);
  (void)fields.String("user");  // without effect
  std::vector<TextInput> inputs =
      ReadTextInputs(fields, "input", model->model().tokenizer, api::kMaxEmbeddedTexts);
  fields.Finish();
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].text && inputs[i].text->empty()) {
      api::BadField("input", fmt::format("input{}: expected a text that is not empty",
                                         inputs.size() == 1 ? "" : fmt::format("[{}]", i)));
    }
    texts.push_back(std::move(inputs[i].tokens));
  }
  std::make_shared<OpenAiEmbeddings>(model->served.id, format == "base64", std::move(responder))
      ->Start(model, std::move(texts), request);
}

}  // namespace bakestone::openai
