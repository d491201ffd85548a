#include <xgrammar/xgrammar.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/error.h"
#include "grammar/bounded_mask.h"
#include "grammar/calls.h"
#include "grammar/library.h"

namespace bakestone::grammar {
namespace {

// A mask that takes longer ends its answer: nothing in the library can be interrupted.
constexpr std::chrono::seconds kMaxMaskTime{2};

// Of what a compiler hands over: a grammar, and where it counts characters the same with its counts
// before it.
constexpr char kBetweenGrammars = '\0';

xgrammar::TokenizerInfo MakeTokenizerInfo(const Vocabulary& vocabulary) {
  const std::vector<int32_t> endings(vocabulary.endings.begin(), vocabulary.endings.end());
  return {vocabulary.tokens, xgrammar::VocabType::RAW, static_cast<int>(vocabulary.tokens.size()),
          endings, false};
}

// The library's words without its file and line.
std::string Words(const std::exception& error) {
  std::string text = error.what();
  const size_t place = text.find(".cc:");
  if (place != std::string::npos && text.find(": ", place) != std::string::npos) {
    text.erase(0, text.find(": ", place) + 2);
  }
  text.erase(text.find_last_not_of(" \n") + 1);
  constexpr size_t kMost = 400;
  if (text.size() > kMost) text.resize(kMost);
  return text;
}

// Of a grammar that is only asked about texts: one token, which ends it.
const xgrammar::TokenizerInfo& NoVocabulary() {
  static const xgrammar::TokenizerInfo info = MakeTokenizerInfo({{""}, {0}});
  return info;
}

class Compiler : public LibraryCompiler {
 public:
  explicit Compiler(const Vocabulary& vocabulary)
      : compiler_(MakeTokenizerInfo(vocabulary), /*max_threads=*/1, /*cache_enabled=*/true,
                  /*max_memory_bytes=*/int64_t{256} << 20),
        for_texts_(NoVocabulary(), /*max_threads=*/1, /*cache_enabled=*/false) {}

  std::string Compile(const std::string& ebnf, const std::string& relaxed) override {
    if (relaxed == ebnf) return One(compiler_, ebnf);
    return One(for_texts_, ebnf) + kBetweenGrammars + One(compiler_, relaxed);
  }

 private:
  static std::string One(xgrammar::GrammarCompiler& compiler, const std::string& ebnf) {
    try {
      return compiler.CompileGrammar(ebnf).SerializeJSON();
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      Throw(ErrorCode::kInvalidArgument, "{}", Words(error));
    }
  }

  xgrammar::GrammarCompiler compiler_, for_texts_;
};

// Tokens that no mask has, a bit a token: those without text of their own, and where markers are
// spelled also those that could spell one.
struct Never {
  std::vector<uint32_t> always, with_markers;
};

void Set(int32_t id, std::span<uint32_t> bits) {
  bits[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
}

class Mask : public TokenMask {
 public:
  Mask(const xgrammar::CompiledGrammar& grammar, const std::vector<int32_t>& markers,
       const std::vector<uint32_t>& never)
      : matcher_(grammar), markers_(markers), never_(never) {}

  void Fill(std::span<uint32_t> bits) override {
    const auto start = std::chrono::steady_clock::now();
    auto size = static_cast<int64_t>(never_.size());
    BAKESTONE_CHECK(bits.size() == never_.size());
    int64_t stride = 1;
    DLTensor tensor{.data = bits.data(),
                    .device = {kDLCPU, 0},
                    .ndim = 1,
                    .dtype = xgrammar::GetBitmaskDLType(),
                    .shape = &size,
                    .strides = &stride,
                    .byte_offset = 0};
    try {
      if (!matcher_.FillNextTokenBitmask(&tensor)) {
        std::fill(bits.begin(), bits.end(), ~uint32_t{0});
      }
      for (size_t i = 0; i < bits.size(); ++i) bits[i] &= ~never_[i];
      for (size_t i = 0; i < markers_.size(); ++i) {
        if (!matcher_.AcceptString(MarkerSpelling(i))) continue;
        matcher_.Rollback(1);
        Set(markers_[i], bits);
      }
    } catch (const std::exception& error) {
      Throw(ErrorCode::kInternal, "the grammar library failed: {}", Words(error));
    }
    if (std::chrono::steady_clock::now() - start > kMaxMaskTime) {
      Throw(ErrorCode::kUnsupported,
            "the answer's form takes too long to be followed: its grammar is too ambiguous");
    }
  }
  bool Accept(int32_t token) override {
    const auto marker = std::find(markers_.begin(), markers_.end(), token);
    if (marker != markers_.end()) {
      return matcher_.AcceptString(MarkerSpelling(static_cast<size_t>(marker - markers_.begin())));
    }
    return !HasBit(never_, token) && matcher_.AcceptToken(token);
  }
  void Rollback(int64_t count) override {
    if (count > 0) matcher_.Rollback(static_cast<int>(count));
  }

 private:
  xgrammar::GrammarMatcher matcher_;
  const std::vector<int32_t>& markers_;
  const std::vector<uint32_t>& never_;
};

class Follower : public TextFollower {
 public:
  explicit Follower(const xgrammar::CompiledGrammar& grammar) : matcher_(grammar) {}
  bool Accept(const std::string& text) override {
    return !text.empty() && matcher_.AcceptString(text);
  }
  void Rollback(int64_t count) override {
    if (count > 0) matcher_.Rollback(static_cast<int>(count));
  }
  bool Complete() override { return matcher_.IsCompleted(); }

 private:
  xgrammar::GrammarMatcher matcher_;
};

class Loaded : public Constraint {
 public:
  // exact: the same with counts, where it has any.
  Loaded(xgrammar::CompiledGrammar grammar, std::optional<xgrammar::CompiledGrammar> exact,
         std::vector<int32_t> markers, std::shared_ptr<const Never> never,
         std::shared_ptr<const TokenTexts> texts)
      : grammar_(std::move(grammar)),
        exact_(std::move(exact)),
        markers_(std::move(markers)),
        never_(std::move(never)),
        texts_(std::move(texts)) {}
  std::unique_ptr<TokenMask> Begin() const override {
    const std::vector<uint32_t>& never = markers_.empty() ? never_->always : never_->with_markers;
    auto mask = std::make_unique<Mask>(grammar_, markers_, never);
    if (!exact_) return mask;
    return MakeBoundedMask(std::make_unique<Follower>(*exact_), std::move(mask), markers_, texts_);
  }

 private:
  const xgrammar::CompiledGrammar grammar_;
  const std::optional<xgrammar::CompiledGrammar> exact_;
  const std::vector<int32_t> markers_;
  const std::shared_ptr<const Never> never_;
  const std::shared_ptr<const TokenTexts> texts_;
};

class Loader : public LibraryLoader {
 public:
  explicit Loader(const Vocabulary& vocabulary)
      : info_(MakeTokenizerInfo(vocabulary)),
        texts_(std::make_shared<const TokenTexts>(vocabulary)) {
    auto never = std::make_shared<Never>();
    never->always.resize((vocabulary.tokens.size() + 31) / 32);
    never->with_markers.resize(never->always.size());
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      const bool ends = std::find(vocabulary.endings.begin(), vocabulary.endings.end(),
                                  static_cast<int32_t>(id)) != vocabulary.endings.end();
      if (ends) continue;
      const std::string& text = vocabulary.tokens[id];
      if (text.empty()) Set(static_cast<int32_t>(id), never->always);
      if (text.empty() || text.find(kMarkerByte) != std::string::npos) {
        Set(static_cast<int32_t>(id), never->with_markers);
      }
    }
    never_ = std::move(never);
  }

  std::shared_ptr<const Constraint> Load(const std::string& compiled,
                                         const std::vector<int32_t>& markers,
                                         size_t* bytes) const override {
    const size_t cut = compiled.find(kBetweenGrammars);
    std::optional<xgrammar::CompiledGrammar> exact;
    if (cut != std::string::npos) exact = Read(compiled.substr(0, cut), NoVocabulary(), bytes);
    return std::make_shared<Loaded>(
        Read(cut == std::string::npos ? compiled : compiled.substr(cut + 1), info_, bytes),
        std::move(exact), markers, never_, texts_);
  }

 private:
  static xgrammar::CompiledGrammar Read(const std::string& compiled,
                                        const xgrammar::TokenizerInfo& info, size_t* bytes) {
    auto loaded = xgrammar::CompiledGrammar::DeserializeJSON(compiled, info);
    auto* grammar = std::get_if<xgrammar::CompiledGrammar>(&loaded);
    if (!grammar) Throw(ErrorCode::kInternal, "what the grammar helper handed over cannot be read");
    *bytes += grammar->MemorySizeBytes();
    return std::move(*grammar);
  }

  const xgrammar::TokenizerInfo info_;
  std::shared_ptr<const Never> never_;
  const std::shared_ptr<const TokenTexts> texts_;
};

}  // namespace

bool LibraryIsBuilt() { return true; }
std::unique_ptr<LibraryCompiler> MakeLibraryCompiler(const Vocabulary& vocabulary) {
  return std::make_unique<Compiler>(vocabulary);
}
std::unique_ptr<LibraryLoader> MakeLibraryLoader(const Vocabulary& vocabulary) {
  return std::make_unique<Loader>(vocabulary);
}

}  // namespace bakestone::grammar
