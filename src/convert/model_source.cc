#include "convert/model_source.h"

#include "base/error.h"
#include "base/quote.h"

namespace bakestone {

int64_t SourceTensor::num_rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < ne.size(); ++i) rows *= ne[i];
  return rows;
}

const SourceTensor* ModelSource::Find(std::string_view tensor) const {
  for (const SourceTensor& one : tensors) {
    if (one.name == tensor) return &one;
  }
  return nullptr;
}

int64_t ModelSource::stored_bytes() const {
  int64_t bytes = 0;
  for (const SourceTensor& tensor : tensors) bytes += tensor.stored_bytes();
  return bytes;
}

ModelSource OpenGgufSource(const std::filesystem::path& path) {
  const auto file = std::make_shared<const GgufFile>(GgufFile::Open(path));
  const std::string_view type = file->GetString("general.type", "model");
  if (type != "model") {
    Throw(ErrorCode::kUnsupported, "{}: general.type: expected 'model', found {}", file->name(),
          Quote(type));
  }
  ModelSource source;
  source.name = file->name();
  source.files = file->paths();
  source.header = file;
  source.owners.push_back(file);
  for (const GgufTensor& tensor : file->tensors()) {
    SourceTensor one;
    one.name = tensor.name;
    one.stored = {one.name};
    one.type = tensor.type;
    one.ne.assign(tensor.ne.begin(), tensor.ne.begin() + std::max(1, tensor.num_dims));
    one.rows = ops::RowsOf(tensor.type, tensor.data.data(), tensor.cols());
    one.bytes = tensor.data;
    one.forget = [raw = file.get(), data = tensor.data] { raw->Forget(data); };
    source.tensors.push_back(std::move(one));
  }
  return source;
}

}  // namespace bakestone
