// A model to be written anew, whatever it lies in: its tensors by GGUF's names and in GGUF's order
// of rows, each read row by row when it is asked for, and its metadata as GGUF keys. Quantizing,
// merging and exporting put one source into another form, so that no more than a piece of a tensor
// is ever in memory.
//
// A source keeps its files mapped; rows may be read by any number of threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "format/gguf.h"
#include "ops/encode.h"
#include "tensor/dtype.h"

namespace bakestone {

struct SourceTensor {
  std::string name;          // "blk.0.attn_q.weight"
  DType type = DType::kF32;  // in which it is stored
  std::vector<int64_t> ne;   // 1 to 4; ne[0] is a row's length
  ops::RowSource rows;       // f32
  std::span<const uint8_t>
      bytes;  // the same as it is stored; empty where it is not (a sum, another order)
  std::vector<std::string> stored;           // names, in the file, of what it is made of
  std::function<void()> forget;              // lets its pages go; may be empty
  std::function<void(ThreadPool&)> prepare;  // called once before rows; may be empty

  int64_t cols() const { return ne[0]; }
  int64_t num_rows() const;
  int64_t elements() const { return cols() * num_rows(); }
  int64_t stored_bytes() const { return num_rows() * RowBytes(type, cols()); }
};

struct ModelSource {
  std::string name;                          // for messages
  std::vector<std::filesystem::path> files;  // what it lies in, for hashing
  std::shared_ptr<const GgufFile> header;    // metadata; its tensors are not those of the source
  std::vector<SourceTensor> tensors;         // in the order in which they shall be written
  std::vector<std::shared_ptr<const void>> owners;  // what must stay mapped

  const SourceTensor* Find(std::string_view tensor) const;  // null if absent
  int64_t stored_bytes() const;
};

// A GGUF file with its other parts. Throws as GgufFile::Open does; kUnsupported for a file that is
// no model.
ModelSource OpenGgufSource(const std::filesystem::path& path);

}  // namespace bakestone
