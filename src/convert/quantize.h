// A model in other element types: first a plan (which type each tensor gets, and why another than
// the mix says), then the file. Tensors are encoded and written a few megabytes at a time on all
// threads; the bytes depend on weights, plan and importance only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/thread_pool.h"
#include "convert/model_source.h"
#include "convert/quant_mix.h"
#include "format/gguf_writer.h"
#include "kernels/kernel_table.h"
#include "tensor/buffer.h"

namespace bakestone {

// From `--tensor PATTERN=TYPE`. The pattern is that of train_layout.h: '*' is any text, and an end
// of the name after a dot is enough ("ffn_down.weight", "blk.0.*").
struct TypeOverride {
  std::string pattern;
  DType type = DType::kF32;
};
// Throws kInvalidArgument saying what was expected.
TypeOverride ParseTypeOverride(const std::string& text);

// Why a tensor does not get the type that the mix has for it.
enum class PlanReason : uint8_t {
  kAsMixed,
  kOverride,      // the user said so
  kRowLength,     // rows are no multiple of the type's block
  kAlreadySmall,  // stored in a quantized type of no more bits: encoding again could only lose
};

struct PlannedTensor {
  const SourceTensor* tensor = nullptr;
  DType wanted = DType::kF32;  // by the mix or the override
  DType type = DType::kF32;    // as it will be written
  PlanReason reason = PlanReason::kAsMixed;

  bool copied() const { return type == tensor->type && !tensor->bytes.empty(); }
  // Whether it is encoded from another quantized type, whose errors stay in it.
  bool requantized() const { return type != tensor->type && IsQuantized(tensor->type); }
  int64_t bytes() const { return tensor->num_rows() * RowBytes(type, tensor->cols()); }
};

struct QuantizePlan {
  uint32_t file_type = 0;  // general.file_type
  std::vector<PlannedTensor> tensors;

  int64_t weights() const;
  int64_t bytes() const;  // of tensors
  double BitsPerWeight() const;
};

struct PlanOptions {
  const QuantMix* mix = nullptr;
  std::vector<TypeOverride> overrides;  // the last one that fits counts
  bool has_importance = false;
};

// The source must outlive the plan. Throws kInvalidArgument for an override that fits no tensor, or
// whose type a tensor cannot have.
QuantizePlan PlanQuantize(const ModelSource& source, const PlanOptions& options);

// Each tensor in the type that it has in `base`; a head that `base` has not, in its embedding's.
QuantizePlan PlanLike(const ModelSource& source, const ModelSource& base);

// Called with the bytes written and to be written; may throw to stop, and then nothing is left
// behind.
using ConvertProgress = std::function<void(int64_t done, int64_t total, const std::string& tensor)>;

// What encoding counts an error in each column by, above 0. [cols] for a matrix, [ne[2], cols] for
// a stack of them; empty: all columns alike.
using ImportanceSource = std::function<std::span<const float>(const SourceTensor&)>;

using MetadataNote =
    std::pair<std::string, std::variant<std::string, int32_t, std::vector<std::string>,
                                        std::vector<int32_t>, std::vector<float>>>;

struct WriteOptions {
  ImportanceSource importance;      // may be empty
  bool fast = false;                // the fast search, without importance (kernel_table.h)
  std::vector<MetadataNote> notes;  // keys added to the metadata, or replaced
  ConvertProgress progress;         // may be empty
};

// Throws kCorrupt for a weight that is no number or does not fit its type, kIo; then `out` is as it
// was.
void WriteQuantized(const ModelSource& source, const QuantizePlan& plan,
                    const std::filesystem::path& out, const KernelTable& kernels, ThreadPool& pool,
                    const WriteOptions& options = {});

// Pieces of a tensor in `type`, for a writer's Source: those of its stored bytes where nothing
// changes, else encoded. All references must outlive the function.
class TensorPieces {
 public:
  struct Search {
    std::span<const float> importance;  // empty: all columns alike
    bool fast = false;
  };
  TensorPieces(const SourceTensor& tensor, DType type, Search search, std::string name,
               const KernelTable& kernels, ThreadPool& pool);
  std::span<const uint8_t> Next();  // empty after the last

 private:
  const SourceTensor& tensor_;
  const DType type_;
  const Search search_;
  const std::string name_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  int64_t row_ = 0;
  Buffer<uint8_t> encoded_;
};

// The metadata of a source, but for keys that say how its tensors are stored; these are of the new
// file.
void CopyMetadata(const ModelSource& source, uint32_t file_type,
                  std::span<const MetadataNote> notes, GgufWriter& writer);

}  // namespace bakestone
