// RWKV's tokenizer: at each place the longest token that the text goes on with, over bytes. A byte
// that begins no token is the unknown one, where there is one that text may give, or is left out.
#include "text/byte_trie.h"
#include "text/text_model.h"

namespace bakestone {
namespace {

class Greedy : public TextModel {
 public:
  Greedy(const TokenizerSpec& spec, const Vocabulary& vocabulary) : unknown_(UnknownOf(spec)) {
    for (int32_t id = 0; id < vocabulary.bytes.size(); ++id) {
      const bool normal = spec.types[static_cast<size_t>(id)] == TokenType::kNormal;
      if (normal && !vocabulary.bytes[id].empty()) trie_.Insert(vocabulary.bytes[id], id);
    }
  }

  void Encode(std::string_view fragment, FragmentPlace, std::vector<int32_t>* ids) const override {
    for (size_t at = 0; at < fragment.size();) {
      int32_t longest = -1;
      size_t end = at + 1;
      int32_t node = ByteTrie::kRoot;
      for (size_t next = at; next < fragment.size(); ++next) {
        node = trie_.Child(node, static_cast<uint8_t>(fragment[next]));
        if (node < 0) break;
        if (trie_.value(node) < 0) continue;
        longest = trie_.value(node);
        end = next + 1;
      }
      if (longest < 0) longest = unknown_;
      if (longest >= 0) ids->push_back(longest);
      at = end;
    }
  }

 private:
  // A control token never comes from text.
  static int32_t UnknownOf(const TokenizerSpec& spec) {
    return spec.unk >= 0 && spec.types[static_cast<size_t>(spec.unk)] != TokenType::kControl
               ? spec.unk
               : -1;
  }

  const int32_t unknown_;
  ByteTrie trie_;
};

}  // namespace

std::unique_ptr<const TextModel> MakeGreedy(const TokenizerSpec& spec,
                                            const Vocabulary& vocabulary) {
  return std::make_unique<Greedy>(spec, vocabulary);
}

}  // namespace bakestone
