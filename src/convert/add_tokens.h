// A model with more tokens: texts that become tokens of their own wherever they stand, and merges
// that a corpus taught (text/learn_merges.h). Each new row of the embedding, and of a head of its
// own, starts at the mean of the rows of the pieces that it replaces. Everything else stays as it
// lies in the file, byte for byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/model_source.h"
#include "convert/quantize.h"
#include "kernels/kernel_table.h"
#include "text/learn_merges.h"

namespace bakestone {

struct NewTokens {
  std::vector<std::string> given;  // plain texts; ids from the vocabulary's end on, in this order
  std::vector<LearnedMerge> learned;  // the ids behind those, in this order
};

struct GrownModel {
  ModelSource source;               // its tables have a row for every new token
  std::vector<MetadataNote> notes;  // the tokenizer's keys, to be written with it
  int64_t first_new = 0;            // id of the first new token
};

// The tokenizer with them. Throws kUnsupported for one that is not byte-level BPE; kInvalidArgument
// for a given text that is empty, no UTF-8, given twice, or a token already.
TokenizerSpec WithTokens(TokenizerSpec spec, const NewTokens& tokens);

// Throws as WithTokens does.
GrownModel AddTokens(const ModelSource& base, const NewTokens& tokens, const KernelTable& kernels,
                     ThreadPool& pool);

}  // namespace bakestone
