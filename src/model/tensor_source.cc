#include "model/tensor_source.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "format/hf_folder.h"

namespace bakestone {
namespace {

// Whatever else multimodal models hold.
constexpr std::string_view kOtherParts[] = {
    "vision_tower.",           "vision_model.", "visual.",      "audio_tower.",
    "multi_modal_projector.",  "embed_vision.", "embed_audio.", "pooler.",
    "embeddings.position_ids", "module:"};

}  // namespace

int64_t StoredTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

std::string StoredTensor::ShapeText() const {
  if (shape.empty()) return "a scalar";
  if (!fastest_first) return fmt::format("{}", fmt::join(shape, " x "));
  return fmt::format("{}", fmt::join(shape.rbegin(), shape.rend(), " x "));
}

TensorSource::TensorSource(const GgufFile& file)
    : name_(file.name()),
      is_hf_(false),
      forget_([&file](std::span<const uint8_t> range) { file.Forget(range); }) {
  for (const GgufTensor& tensor : file.tensors()) {
    StoredTensor source{.name = tensor.name,
                        .type_name = DTypeName(tensor.type),
                        .type = tensor.type,
                        .data = tensor.data,
                        .fastest_first = true};
    for (int i = tensor.num_dims - 1; i >= 0; --i) {
      source.shape.push_back(tensor.ne[static_cast<size_t>(i)]);
    }
    tensors_.push_back(std::move(source));
  }
  Index();
}

TensorSource::TensorSource(const HfFolder& folder)
    : name_(folder.name()), is_hf_(true), forget_([&folder](std::span<const uint8_t> range) {
        for (const SafetensorsFile& shard : folder.shards()) {
          const std::span<const uint8_t> bytes = shard.mapping().bytes();
          if (range.data() >= bytes.data() && range.data() < bytes.data() + bytes.size()) {
            return shard.mapping().Forget(range);
          }
        }
      }) {
  for (const std::span<const HfTensor> tensors : {folder.tensors(), folder.module_tensors()}) {
    for (const HfTensor& named : tensors) {
      const SafetensorsTensor& tensor = *named.tensor;
      tensors_.push_back({.name = named.name,
                          .type_name = tensor.dtype,
                          .has_type = tensor.type.has_value(),
                          .type = tensor.type.value_or(DType::kF32),
                          .shape = tensor.shape,
                          .data = tensor.data});
    }
  }
  Index();
}

void TensorSource::Index() {
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const StoredTensor* TensorSource::Find(std::string_view tensor) const {
  const auto found = by_name_.find(tensor);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& TensorSource::Tensor(std::string_view tensor) const {
  const StoredTensor* found = Find(tensor);
  if (found == nullptr) {
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected, found no such tensor among {}", name_,
          Quote(tensor), tensors_.size());
  }
  return *found;
}

bool TensorSource::MayIgnore(const StoredTensor& tensor) const {
  if (!is_hf_) {
    return tensor.name.starts_with("rope_f");  // rope_freqs, rope_factors_*: the config has them
  }
  if (tensor.name.ends_with(".rotary_emb.inv_freq")) return true;
  return std::any_of(std::begin(kOtherParts), std::end(kOtherParts), [&](std::string_view part) {
    return tensor.name.starts_with(part) ||
           (tensor.name.starts_with("model.") && tensor.name.substr(6).starts_with(part));
  });
}

}  // namespace bakestone
