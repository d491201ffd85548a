// GGUF's tokenizer.ggml.* metadata -> TokenizerSpec: byte-level BPE ("gpt2"), SentencePiece BPE
// ("llama") and unigram ("t5"). What the file leaves out gets the default of the file's kind, as
// the programs that write such files assume. Other kinds are kUnsupported by name. The spec's
// values are checked by Tokenizer's constructor, not here; what is checked here is that fields have
// their types.
#pragma once

#include "format/gguf.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// Throws Error(kCorrupt or kUnsupported) naming the file and the key. Copies: the spec outlives the
// file.
TokenizerSpec FromGguf(const GgufFile& file);

}  // namespace bakestone
