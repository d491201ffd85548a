#include "convert/quantize.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "base/sha256.h"
#include "model/train_layout.h"

namespace bakestone {
namespace {

// A piece: enough rows for all threads, little enough that memory and Ctrl-C do not notice it.
constexpr int64_t kPieceBytes = 16 << 20;
constexpr const char* kSourceHashKey = "bakestone.source.sha256";

double Bits(DType type) {
  return 8.0 * static_cast<double>(BlockBytes(type)) / static_cast<double>(BlockSize(type));
}

// Keys that say how tensors are stored, or belong to one file of several.
bool IsOfStorage(std::string_view key) {
  return key == "general.alignment" || key == "general.file_type" ||
         key == "general.quantization_version" || key == kSourceHashKey ||
         key.starts_with("split.") || key.starts_with("quantize.imatrix.");
}

std::string TypeNames() {
  std::string names;
  for (uint32_t i = 0; i < 64; ++i) {
    if (!IsDType(i) || !FindWeightType(DTypeName(static_cast<DType>(i)))) continue;
    names += (names.empty() ? "" : ", ") + std::string(DTypeName(static_cast<DType>(i)));
  }
  return names;
}

void ApplyOverride(const ModelSource& source, const TypeOverride& override,
                   PlannedTensor& planned) {
  const SourceTensor& tensor = *planned.tensor;
  if (tensor.cols() % BlockSize(override.type) != 0) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: tensor {}: {} needs rows of a multiple of {} weights, found {}; {} fits",
          source.name, Quote(tensor.name), DTypeName(override.type), BlockSize(override.type),
          tensor.cols(), DTypeName(FittingType(override.type, tensor.cols())));
  }
  planned.wanted = planned.type = override.type;
  planned.reason = PlanReason::kOverride;
}

PlannedTensor Planned(const SourceTensor& tensor, DType wanted) {
  PlannedTensor planned{.tensor = &tensor, .wanted = wanted, .type = wanted};
  if (wanted == tensor.type) return planned;
  const DType fitting = FittingType(wanted, tensor.cols());
  if (fitting != wanted) planned.reason = PlanReason::kRowLength;
  planned.type = fitting;
  if (IsQuantized(tensor.type) && IsQuantized(fitting) && Bits(tensor.type) <= Bits(fitting)) {
    planned.reason = PlanReason::kAlreadySmall;
    planned.type = tensor.type;
  }
  return planned;
}

}  // namespace

TypeOverride ParseTypeOverride(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) {
    Throw(ErrorCode::kInvalidArgument,
          "--tensor: expected PATTERN=TYPE, such as ffn_down.weight=q6_k, found {}", Quote(text));
  }
  const auto type = FindWeightType(std::string_view(text).substr(equals + 1));
  if (!type) {
    Throw(ErrorCode::kInvalidArgument, "--tensor {}: expected one of {}, found {}",
          Quote(text.substr(0, equals)), TypeNames(), Quote(text.substr(equals + 1)));
  }
  return {text.substr(0, equals), *type};
}

int64_t QuantizePlan::weights() const {
  int64_t sum = 0;
  for (const PlannedTensor& one : tensors) sum += one.tensor->elements();
  return sum;
}

int64_t QuantizePlan::bytes() const {
  int64_t sum = 0;
  for (const PlannedTensor& one : tensors) sum += one.bytes();
  return sum;
}

double QuantizePlan::BitsPerWeight() const {
  return 8.0 * static_cast<double>(bytes()) / static_cast<double>(std::max<int64_t>(1, weights()));
}

QuantizePlan PlanQuantize(const ModelSource& source, const PlanOptions& options) {
  BAKESTONE_CHECK(options.mix != nullptr);
  const std::vector<DType> wanted = ChooseTypes(*options.mix, source, options.has_importance);
  QuantizePlan plan;
  plan.file_type = options.mix->file_type;
  std::vector<bool> used(options.overrides.size());
  for (size_t i = 0; i < source.tensors.size(); ++i) {
    PlannedTensor planned = Planned(source.tensors[i], wanted[i]);
    for (size_t o = 0; o < options.overrides.size(); ++o) {
      if (!IsQuantizable(source.tensors[i]) ||
          !FitsPattern(options.overrides[o].pattern, source.tensors[i].name)) {
        continue;
      }
      used[o] = true;
      ApplyOverride(source, options.overrides[o], planned);
    }
    plan.tensors.push_back(planned);
  }
  for (size_t o = 0; o < used.size(); ++o) {
    if (used[o]) continue;
    Throw(ErrorCode::kInvalidArgument,
          "--tensor: expected a pattern that fits a matrix of {}, such as attn_v.weight or "
          "blk.0.*, found {}",
          source.name, Quote(options.overrides[o].pattern));
  }
  return plan;
}

QuantizePlan PlanLike(const ModelSource& source, const ModelSource& base) {
  QuantizePlan plan;
  plan.file_type = base.header->GetU32("general.file_type", 0);
  for (const SourceTensor& tensor : source.tensors) {
    const SourceTensor* like = base.Find(tensor.name);
    if (like == nullptr) like = base.Find("token_embd.weight");  // a head that was one with it
    const DType type = like != nullptr ? like->type : tensor.type;
    plan.tensors.push_back({.tensor = &tensor, .wanted = type, .type = type});
  }
  return plan;
}

TensorPieces::TensorPieces(const SourceTensor& tensor, DType type, Search search, std::string name,
                           const KernelTable& kernels, ThreadPool& pool)
    : tensor_(tensor),
      type_(type),
      search_(search),
      name_(std::move(name)),
      kernels_(kernels),
      pool_(pool) {
  const auto size = static_cast<int64_t>(search.importance.size()), matrices = size / tensor.cols();
  BAKESTONE_CHECK(size == 0 ||
                  (size == matrices * tensor.cols() && tensor.num_rows() % matrices == 0));
}

std::span<const uint8_t> TensorPieces::Next() {
  const int64_t rows = tensor_.num_rows(), row_bytes = RowBytes(type_, tensor_.cols());
  if (row_ >= rows) return {};
  int64_t count = std::min(rows - row_, std::max<int64_t>(1, kPieceBytes / row_bytes));
  std::span<const float> importance;
  const std::span<const float> all = search_.importance;
  if (!all.empty()) {  // of one matrix of the stack at a time
    const int64_t per_matrix = rows / (static_cast<int64_t>(all.size()) / tensor_.cols());
    count = std::min(count, per_matrix - row_ % per_matrix);
    importance = all.subspan(static_cast<size_t>(row_ / per_matrix * tensor_.cols()),
                             static_cast<size_t>(tensor_.cols()));
  }
  const int64_t first = std::exchange(row_, row_ + count);
  const auto size = static_cast<size_t>(count * row_bytes);
  if (type_ == tensor_.type && !tensor_.bytes.empty()) {
    return tensor_.bytes.subspan(static_cast<size_t>(first * row_bytes), size);
  }
  if (encoded_.size() < count * row_bytes) encoded_ = Buffer<uint8_t>(count * row_bytes);
  ops::Encode(pool_, kernels_,
              {.name = name_,
               .to = type_,
               .n = count,
               .k = tensor_.cols(),
               .importance = importance,
               .fast = search_.fast,
               .out = encoded_.data()},
              [&](int64_t row, int64_t n, float* x) { tensor_.rows(first + row, n, x); });
  return {encoded_.data(), size};
}

namespace {

void AddNote(const std::string& key, const MetadataNote::second_type& value, GgufWriter& writer) {
  if (const auto* text = std::get_if<std::string>(&value)) return writer.AddString(key, *text);
  if (const auto* number = std::get_if<int32_t>(&value)) return writer.AddI32(key, *number);
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    return writer.AddStrings(key, std::span<const std::string>(*texts));
  }
  if (const auto* numbers = std::get_if<std::vector<int32_t>>(&value)) {
    return writer.AddI32s(key, *numbers);
  }
  writer.AddF32s(key, std::get<std::vector<float>>(value));
}

}  // namespace

void CopyMetadata(const ModelSource& source, uint32_t file_type,
                  std::span<const MetadataNote> notes, GgufWriter& writer) {
  const auto is_note = [&](std::string_view key) {
    return std::any_of(notes.begin(), notes.end(),
                       [&](const auto& note) { return note.first == key; });
  };
  for (const GgufEntry& entry : source.header->metadata()) {
    if (!IsOfStorage(entry.key) && !is_note(entry.key)) writer.AddValue(entry.key, entry.value);
  }
  writer.AddU32("general.file_type", file_type);
  writer.AddU32("general.quantization_version", 2);
  std::vector<std::string> hashes;
  for (const auto& file : source.files) hashes.push_back(ToHex(HashOfFile(file)));
  if (!hashes.empty()) writer.AddStrings(kSourceHashKey, std::span<const std::string>(hashes));
  for (const auto& [key, value] : notes) AddNote(key, value, writer);
}

void WriteQuantized(const ModelSource& source, const QuantizePlan& plan,
                    const std::filesystem::path& out, const KernelTable& kernels, ThreadPool& pool,
                    const WriteOptions& options) {
  GgufWriter writer;
  CopyMetadata(source, plan.file_type, options.notes, writer);
  int64_t done = 0;
  const int64_t total = plan.bytes();
  std::unique_ptr<TensorPieces> pieces;
  const PlannedTensor* current = nullptr;
  for (const PlannedTensor& planned : plan.tensors) {
    const SourceTensor& tensor = *planned.tensor;
    writer.AddTensor(tensor.name, planned.type, tensor.ne, [&]() -> std::span<const uint8_t> {
      if (current != &planned) {
        if (current != nullptr && current->tensor->forget) current->tensor->forget();
        current = &planned;
        if (tensor.prepare) tensor.prepare(pool);
        const auto importance =
            options.importance ? options.importance(tensor) : std::span<const float>();
        pieces = std::make_unique<TensorPieces>(
            tensor, planned.type, TensorPieces::Search{importance, options.fast},
            fmt::format("{}: tensor {}", source.name, Quote(tensor.name)), kernels, pool);
      }
      if (options.progress) options.progress(done, total, tensor.name);
      const std::span<const uint8_t> piece = pieces->Next();
      done += static_cast<int64_t>(piece.size());
      return piece;
    });
  }
  writer.Write(out);
  if (options.progress) options.progress(total, total, "");
}

}  // namespace bakestone
