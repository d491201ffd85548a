// An importance matrix: for each column of each matrix, the mean square of what a text put into it.
// An error in a column that sees large inputs moves more of the output, so encoding counts it more.
// As files:
//
//   GGUF with general.type "imatrix", imatrix.datasets [names], imatrix.chunk_count,
//   imatrix.chunk_size (tokens of a chunk), and for each matrix two F32 tensors, llama.cpp's form:
//     NAME.in_sum2   ne [columns, matrices]: sums of squares; several matrices where experts are
//                    stacked
//     NAME.counts    ne [1, matrices]: rows that were summed
//
// Plain data; one thread writes, any number read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "convert/quantize.h"

namespace bakestone {

struct ImportanceEntry {
  std::vector<double> sums;    // [matrices, columns]
  std::vector<double> counts;  // [matrices]
};

class ImportanceMatrix {
 public:
  // Throws kCorrupt or kUnsupported naming file and tensor.
  static ImportanceMatrix Read(const std::filesystem::path& path);
  void Write(const std::filesystem::path& path) const;

  std::map<std::string, ImportanceEntry, std::less<>>
      entries;  // by the matrix: "blk.0.attn_q.weight"
  std::vector<std::string> datasets;
  uint32_t num_chunks = 0, chunk_size = 0;
};

// An importance matrix made ready for one model.
class ImportanceWeights {
 public:
  // Throws kInvalidArgument naming a matrix whose columns are not those of the source, or where
  // none fits at all.
  ImportanceWeights(const ImportanceMatrix& matrix, const ModelSource& source);

  // [columns] or [matrices, columns], above 0 with a mean of 1; empty where the text says nothing.
  std::span<const float> Of(const SourceTensor& tensor) const;
  // [matrices] by which these weights were divided: the mean square of what comes in, by how often
  // the matrix is used; empty where Of is.
  std::span<const float> ScalesOf(const SourceTensor& tensor) const;
  // The keys by which a file says what it was made with; llama.cpp writes the same.
  std::vector<MetadataNote> Notes(const ImportanceMatrix& matrix, const std::string& file) const;
  ImportanceSource AsSource() const;  // the object must outlive it

  int64_t num_matrices() const { return num_matrices_; }  // experts counted one by one
  int64_t num_unreached() const {
    return num_unreached_;
  }  // of those: no token came by, all columns count 1

 private:
  std::map<std::string, std::vector<float>, std::less<>> weights_, scales_;
  int64_t num_matrices_ = 0, num_unreached_ = 0;
};

}  // namespace bakestone
