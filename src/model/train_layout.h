// What is trained, and where each tensor of it lies in one flat f32 array. Masters, gradients and
// moments share the layout, which keeps optimizer, checkpoint and export short.
//
// Either LoRA pairs (with DoRA a magnitude for each output) on linears that patterns choose, or the
// model's own tensors. Rows of the embedding and of the head can be trained beside pairs: all, or
// those of new tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/linear_id.h"

namespace bakestone {

struct LoraSlot {
  LinearId id;
  int64_t rank = 0, in = 0, out = 0;
  int64_t a_offset = 0;           // [rank, in]
  int64_t b_offset = 0;           // [out, rank]
  int64_t magnitude_offset = -1;  // [out] with DoRA, else -1
};

struct MatrixSlot {
  LinearId id;
  int64_t in = 0, out = 0;
  int64_t offset = 0;        // [out, in]
  int64_t bias_offset = -1;  // [out], -1: no bias
};

// Rows [first, first + rows) of the embedding or of the head, [rows, hidden_dim].
struct RowsSlot {
  int64_t first = 0, rows = 0;  // rows 0: none
  int64_t offset = 0;
  bool Holds(int64_t row) const { return row >= first && row < first + rows; }
};

// One tensor as the optimizer, the log and the export see it.
struct TrainTensor {
  std::string name;  // Hugging Face's: "layers.3.self_attn.q_proj.weight"; pairs: "....lora_A"
  int64_t offset = 0, rows = 0, cols = 0;  // cols 0: a vector
  bool embedding = false;                  // takes the embeddings' own rate
  bool decays = false;                     // weight decay applies
  int64_t size() const { return rows * (cols > 0 ? cols : 1); }
};

enum class TrainedRows : uint8_t { kNone, kNew, kAll };

struct TrainShape {
  // Patterns: '*' is any text. One fits a tensor if it fits its whole name or an end of it after a
  // dot:
  // "q_proj", "self_attn.*", "layers.0.*". "all" fits every linear (with pairs) or every tensor.
  std::vector<std::string> targets = {"all"};
  int64_t rank = 0;                       // of the pairs; 0: the tensors themselves are trained
  bool dora = false;                      // pairs only
  TrainedRows rows = TrainedRows::kNone;  // of embedding and head; pairs only
  int64_t first_new_row = 0;              // with kNew: rows from here on are those of new tokens
};

class TrainLayout {
 public:
  // has_bias: whether the base has one at a linear. Throws kInvalidArgument for a pattern that fits
  // nothing, nothing to train, or a rank outside [1, 1024].
  static TrainLayout Make(const ModelConfig& config, const TrainShape& shape,
                          const std::vector<LinearId>& biases = {});

  std::vector<LoraSlot> slots;       // ascending by id
  std::vector<MatrixSlot> matrices;  // ascending by id; not together with slots
  std::vector<int64_t> attention_norms,
      mlp_norms;  // [num_layers] offsets, -1: frozen; empty: all frozen
  int64_t final_norm = -1;
  RowsSlot embedding;                // with a tied head also the head's
  RowsSlot head;                     // of an untied head
  std::vector<TrainTensor> tensors;  // ascending by offset; covers [0, size)
  int64_t size = 0;                  // floats
  bool tied = false;

  const LoraSlot* Find(LinearId id) const noexcept;
  const MatrixSlot* FindMatrix(LinearId id) const noexcept;
  bool full() const noexcept { return slots.empty(); }
  bool dora() const noexcept { return !slots.empty() && slots.front().magnitude_offset >= 0; }
  // The rows that the head is trained in: its own, or the tied embedding's.
  const RowsSlot& head_rows() const noexcept { return tied ? embedding : head; }
  // The lowest layer with something trained in it or below; num_layers: only above the layers.
  int64_t lowest_layer(int64_t num_layers) const noexcept;

 private:
  friend class LayoutBuilder;
};

// True if the pattern fits the name or an end of it after a dot.
bool FitsPattern(std::string_view pattern, std::string_view name);

}  // namespace bakestone
