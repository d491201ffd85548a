// What `--quantize TYPE` does to a model that is loaded: the types that `bakestone quantize` would
// write, by the names of the tensors that are there, for the loader (model/load_types.h).
//
// Rows become the same blocks as `bakestone quantize --fast` writes, but for two matrices of
// folders whose columns GGUF has in another order, the keys' projection from a latent
// (DeepSeek's) and the output of the gated delta rule (Qwen3.5's), and for gpt-oss's MXFP4, whose
// zeros keep their sign.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convert/model_source.h"
#include "convert/quantize.h"
#include "model/load_types.h"

namespace bakestone {

struct LoadPlan {
  ModelSource source;  // that the plan points into; without metadata
  QuantizePlan plan;
  LoadTypes types;
};

// Throws what OpenSource throws; kInvalidArgument where the model would not become smaller.
LoadPlan PlanLoad(const std::filesystem::path& path, const QuantMix& mix);

// One line for people: the mix, the bits a weight, bytes before and after, how many tensors have
// which type, and how many got another than the mix has for them, and why.
std::string LoadLine(const LoadPlan& plan, const QuantMix& mix);

}  // namespace bakestone
