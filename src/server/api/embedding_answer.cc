#include "server/api/embedding_answer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"
#include "server/api/guard.h"

namespace bakestone::api {

void EmbeddingAnswer::Start(const ModelPtr& model, std::vector<std::vector<int32_t>> texts,
                            const http::Request& request) {
  EmbeddingLoop& loop = model->embedder();
  Guarded(loop, request, *responder_, [&] {
    model_ = model->served.id;
    path_ = request.path;
    for (const auto& text : texts) lengths_.push_back(static_cast<int64_t>(text.size()));
    const EmbeddingLoop::Id id =
        loop.Submit({.texts = std::move(texts),
                     .tenant = request.tenant(),
                     .sink = [self = shared_from_this()](EmbeddingEvent&& event) {
                       self->Receive(std::move(event));
                     }});
    responder_->OnDisconnect([&loop, id] { loop.Cancel(id); });
  });
}

void EmbeddingAnswer::Receive(EmbeddingEvent&& event) {
  for (const std::vector<float>& vector : event.vectors) {
    Append(index_, vector, &body_);
    tokens_ += lengths_[static_cast<size_t>(index_++)];
  }
  if (!event.last) return;
  responder_->Account({.model = model_,
                       .prompt_tokens = tokens_,
                       .cancelled = event.cancelled,
                       .failed = event.error.has_value()});
  if (event.cancelled) return;
  if (event.error) {
    responder_->Send(ToResponse(FromError(*event.error), FamilyOf(path_)));
    return;
  }
  Finish(&body_);
  responder_->Send({.headers = {}, .body = std::move(body_)});
}

void CheckDimensions(Fields& fields, const ModelEntry& model) {
  const int64_t own = model.model().config.embedding_width();
  fields.Only("dimensions", own,
              fmt::format("this model's vectors have {} dimensions, and it does not say that it "
                          "was trained so that the first of them stand for all",
                          own));
}

void AppendNumbers(std::span<const float> vector, std::string* body) {
  *body += '[';
  for (size_t i = 0; i < vector.size(); ++i) {
    if (i > 0) *body += ',';
    std::array<char, 32> text;
    // As double, which is what readers make of it: then this form and base64 give them the same
    // numbers.
    const auto end =
        std::to_chars(text.data(), text.data() + text.size(), static_cast<double>(vector[i])).ptr;
    const std::string_view digits(text.data(), static_cast<size_t>(end - text.data()));
    *body += digits;
    if (digits.find_first_of(".e") == std::string_view::npos) *body += ".0";
  }
  *body += ']';
}

void AppendBase64(std::span<const float> vector, std::string* body) {
  static_assert(std::endian::native == std::endian::little);
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto bytes = std::as_bytes(vector);
  *body += '"';
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i) {
      group = group << 8 | (i < count ? std::to_integer<uint32_t>(bytes[at + i]) : 0);
    }
    for (size_t i = 0; i < 4; ++i) *body += i <= count ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  *body += '"';
}

}  // namespace bakestone::api
