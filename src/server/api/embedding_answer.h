// One HTTP answer made of the vectors of some texts, whatever API asks for them. Subclasses know
// its form, and write a vector as soon as it is there: a large answer takes the loop no time at its
// end.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/embedding_loop.h"
#include "server/api/fields.h"
#include "server/api/model_registry.h"
#include "server/http/message.h"

namespace bakestone::api {

// Texts of one request.
inline constexpr size_t kMaxEmbeddedTexts = 2048;

class EmbeddingAnswer : public std::enable_shared_from_this<EmbeddingAnswer> {
 public:
  explicit EmbeddingAnswer(std::shared_ptr<http::Responder> responder)
      : responder_(std::move(responder)) {}
  virtual ~EmbeddingAnswer() = default;

  // Submits; what is wrong is sent in the form of the request's API. The loop must outlive the HTTP
  // server.
  void Start(const ModelPtr& model, std::vector<std::vector<int32_t>> texts,
             const http::Request& request);

 protected:
  // Called in order, on the loop's thread.
  virtual void Append(int64_t index, std::span<const float> vector, std::string* body) = 0;
  virtual void Finish(std::string* body) = 0;

  int64_t tokens() const { return tokens_; }  // of all texts so far
  std::chrono::steady_clock::duration Elapsed() const {
    return std::chrono::steady_clock::now() - start_;
  }

 private:
  void Receive(EmbeddingEvent&& event);

  const std::shared_ptr<http::Responder> responder_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string model_, path_,
      body_;  // the model's name: whoever holds the model may not end on the loop's thread
  std::vector<int64_t> lengths_;  // of the texts, in tokens
  int64_t index_ = 0, tokens_ = 0;
};

// The field `dimensions`: only as many as the model's vectors have. Throws ApiError 400.
void CheckDimensions(Fields& fields, const ModelEntry& model);

// As JSON: [0.1,-0.25], every number with the digits that give its very bits back.
void AppendNumbers(std::span<const float> vector, std::string* body);
// As JSON: the little-endian bytes of the numbers in a string of base64.
void AppendBase64(std::span<const float> vector, std::string* body);

}  // namespace bakestone::api
