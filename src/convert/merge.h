// Adapters merged into their base, and models of one architecture into one: sources whose rows are
// made when they are asked for, in f32 from what lies in the files, so that no second model is ever
// in memory. Tensors that no contender changes stay as they are, bytes and all; those that are
// merged count as F32.
//
// Where the base uses one table as embedding and head (tied) and a contender changes one of them
// only, the result is untied: it gets a head of its own, because changing the shared table would
// change both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/combine.h"
#include "convert/model_source.h"
#include "format/adapter_file.h"
#include "format/gguf_adapter.h"

namespace bakestone {

struct MergeAdapter {
  AdapterFile file;
  double weight = 1;
};

struct MergeModel {
  ModelSource source;
  double weight = 1;
};

struct Merged {
  ModelSource source;
  int64_t num_merged = 0;  // tensors that changed
  bool untied = false;     // the base's table was made two
};

// Heads of the model, which rows of q and k are permuted by.
HeadShape HeadsOf(const ModelSource& source);

// The base's source stays in use. Throws kInvalidArgument for an adapter of another architecture or
// shape, or slerp.
Merged MergeAdapters(const ModelSource& base, std::vector<MergeAdapter> adapters,
                     const MergeOptions& options);

// The sources move into the result, the base's stays in use. Throws kInvalidArgument naming the
// field or tensor where architecture, vocabulary, tensors or shapes differ.
Merged MergeModels(const ModelSource& base, std::vector<MergeModel> models,
                   const MergeOptions& options);

// The weighted sum of adapters as one adapter: ranks side by side. Throws kUnsupported for DoRA,
// whose sum is none.
AdapterFile SumOfAdapters(const std::vector<MergeAdapter>& adapters);

// How much of a merge its rounding ate: root mean squares over a sample of the merged tensors.
struct MergeLoss {
  double change = 0;  // of merged weights against the base's
  double error = 0;   // of written weights against merged ones
};
MergeLoss MeasureMergeLoss(const ModelSource& base, const ModelSource& merged,
                           const ModelSource& written, ThreadPool& pool);

}  // namespace bakestone
