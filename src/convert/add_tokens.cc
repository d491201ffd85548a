#include "convert/add_tokens.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf_tokenizer.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr size_t kMaxTokenBytes = 1024;

void CheckGiven(const std::vector<std::string>& given, const Tokenizer& tokenizer) {
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string& text = given[i];
    const char* problem = nullptr;
    if (text.empty() || text.size() > kMaxTokenBytes) {
      problem = "expected 1 to 1,024 bytes";
    } else if (ToValidUtf8(text) != text) {
      problem = "expected UTF-8";
    } else if (std::find(given.begin(), given.begin() + static_cast<ptrdiff_t>(i), text) !=
               given.begin() + static_cast<ptrdiff_t>(i)) {
      problem = "given twice";
    } else if (tokenizer.Find(text) ||
               tokenizer.Encode(text, {.add_special = false, .parse_special = true}).size() == 1) {
      problem = "a token of this model already";
    }
    if (problem != nullptr) {
      Throw(ErrorCode::kInvalidArgument, "new token {}: {}", Quote(text), problem);
    }
  }
}

// One row of f32 for each new token: the mean of the table's rows of its pieces.
std::vector<float> NewRows(const SourceTensor& table,
                           const std::vector<std::vector<int32_t>>& pieces) {
  const int64_t cols = table.cols();
  std::vector<float> rows(pieces.size() * static_cast<size_t>(cols));
  std::vector<float> row(static_cast<size_t>(cols));
  std::vector<double> sum(static_cast<size_t>(cols));
  for (size_t token = 0; token < pieces.size(); ++token) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (const int32_t piece : pieces[token]) {
      table.rows(piece, 1, row.data());
      for (size_t i = 0; i < row.size(); ++i) sum[i] += static_cast<double>(row[i]);
    }
    float* to = rows.data() + token * row.size();
    for (size_t i = 0; i < row.size(); ++i) {
      to[i] = static_cast<float>(sum[i] / static_cast<double>(pieces[token].size()));
    }
  }
  return rows;
}

// The table as it is stored, with the new rows from `first` on, in its own type.
void Grow(SourceTensor* table, int64_t first, const std::vector<std::vector<int32_t>>& pieces,
          const std::string& where, const KernelTable& kernels, ThreadPool& pool,
          ModelSource* source) {
  const int64_t old_rows = table->num_rows(), cols = table->cols(),
                row_bytes = RowBytes(table->type, cols);
  const auto count = static_cast<int64_t>(pieces.size());
  const int64_t rows = std::max(old_rows, first + count);
  if (table->ne.size() != 2 || first > old_rows || table->bytes.empty()) {
    Throw(ErrorCode::kUnsupported,
          "{}: tensor {}: expected a table with a row for each of {} tokens, found {} rows", where,
          Quote(table->name), first, old_rows);
  }
  const std::vector<float> added = NewRows(*table, pieces);
  auto bytes = std::make_shared<std::vector<uint8_t>>(static_cast<size_t>(rows * row_bytes));
  std::memcpy(bytes->data(), table->bytes.data(), static_cast<size_t>(old_rows * row_bytes));
  ops::Encode(pool, kernels,
              {.name = table->name,
               .to = table->type,
               .n = count,
               .k = cols,
               .importance = {},
               .out = bytes->data() + first * row_bytes},
              [&](int64_t row, int64_t n, float* x) {
                std::copy_n(added.data() + row * cols, n * cols, x);
              });
  table->ne[1] = rows;
  table->bytes = *bytes;
  table->rows = ops::RowsOf(table->type, bytes->data(), cols);
  table->forget = {};
  source->owners.push_back(std::move(bytes));
}

std::vector<MetadataNote> TokenizerNotes(TokenizerSpec spec, const GgufFile& header) {
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  std::vector<MetadataNote> notes;
  if (header.Has("tokenizer.ggml.scores")) {  // of no use here, but as many as there are tokens
    std::vector<float> scores = header.GetF32s("tokenizer.ggml.scores");
    scores.resize(spec.tokens.size());
    notes.emplace_back("tokenizer.ggml.scores", std::move(scores));
  }
  notes.emplace_back("tokenizer.ggml.tokens", std::move(spec.tokens));
  notes.emplace_back("tokenizer.ggml.token_type", std::move(types));
  notes.emplace_back("tokenizer.ggml.merges", std::move(merges));
  return notes;
}

}  // namespace

TokenizerSpec WithTokens(TokenizerSpec spec, const NewTokens& tokens) {
  if (spec.kind != TokenizerKind::kByteBpe) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a byte-level BPE tokenizer to add tokens to, found another kind",
          spec.source);
  }
  CheckGiven(tokens.given, Tokenizer(spec));
  spec.types.resize(spec.tokens.size(), TokenType::kNormal);
  const auto add = [&](const std::string& text, TokenType type) {
    spec.tokens.push_back(text);
    spec.types.push_back(type);
  };
  for (const std::string& text : tokens.given) add(text, TokenType::kUserDefined);
  for (const LearnedMerge& merge : tokens.learned) {
    add(merge.left + merge.right, TokenType::kNormal);
    spec.merges.emplace_back(merge.left, merge.right);
  }
  return spec;
}

GrownModel AddTokens(const ModelSource& base, const NewTokens& tokens, const KernelTable& kernels,
                     ThreadPool& pool) {
  const TokenizerSpec spec = FromGguf(*base.header);
  TokenizerSpec grown_spec = WithTokens(spec, tokens);
  const Tokenizer tokenizer(spec);
  std::vector<std::vector<int32_t>> pieces;
  for (const std::string& text : tokens.given) {
    pieces.push_back(tokenizer.Encode(text, {.add_special = false}));
  }
  for (const LearnedMerge& merge : tokens.learned) pieces.push_back(merge.pieces);
  GrownModel grown{.source = base,
                   .notes = TokenizerNotes(std::move(grown_spec), *base.header),
                   .first_new = tokenizer.vocab_size()};
  bool found = false;
  for (SourceTensor& tensor : grown.source.tensors) {
    if (tensor.name != "token_embd.weight" && tensor.name != "output.weight") continue;
    found = found || tensor.name == "token_embd.weight";
    Grow(&tensor, grown.first_new, pieces, base.name, kernels, pool, &grown.source);
  }
  if (!found) {
    Throw(ErrorCode::kUnsupported, "{}: expected a tensor 'token_embd.weight', found none",
          base.name);
  }
  const std::string key =
      std::string(base.header->GetString("general.architecture")) + ".vocab_size";
  if (base.header->Has(key)) {
    grown.notes.emplace_back(
        key, static_cast<int32_t>(grown.source.Find("token_embd.weight")->num_rows()));
  }
  return grown;
}

}  // namespace bakestone
