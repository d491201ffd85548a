// The projection from a latent to keys and values. Folders have it as one matrix, by head [nope +
// value, rank]; GGUF files as two stacks, attn_k_b [heads, rank, nope] (each matrix turned) and
// attn_v_b [heads, value, rank], older ones as one.
#pragma once

#include "convert/model_source.h"
#include "model/config.h"

namespace bakestone {

// kv_b as the folder has it: k_b, v_b without names. Throws kCorrupt where its shape is not the
// config's.
std::vector<SourceTensor> SplitKeysAndValues(const LatentConfig& latent, int64_t heads,
                                             const SourceTensor& kv_b);
// And back, without a name.
SourceTensor JoinKeysAndValues(const LatentConfig& latent, int64_t heads, const SourceTensor& k_b,
                               const SourceTensor& v_b);

}  // namespace bakestone
