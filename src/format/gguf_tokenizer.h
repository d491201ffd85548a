// The tokenizer inside a GGUF file (the keys tokenizer.ggml.*) as a TokenizerSpec, which Tokenizer's
// constructor checks. Stateless; any thread.
#pragma once

#include "text/tokenizer_spec.h"

namespace bakestone {

class GgufFile;

// Throws kUnsupported for a kind of tokenizer that is not known, kCorrupt for keys that are absent, of the
// wrong type or of the wrong length; both name the file and the key.
TokenizerSpec ReadTokenizerSpec(const GgufFile& file);

}  // namespace bakestone
