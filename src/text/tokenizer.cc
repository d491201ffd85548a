#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "text/added_tokens.h"
#include "text/spec_check.h"
#include "text/text_model.h"
#include "text/utf8.h"

namespace bakestone {

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  AddedTokens added;  // control tokens; for byte-level BPE also user-defined ones
  std::unique_ptr<const TextModel> model;
};

namespace {

std::unique_ptr<const TextModel> MakeModel(const TokenizerSpec& spec,
                                           const Vocabulary& vocabulary) {
  switch (spec.kind) {
    case TokenizerKind::kByteBpe:
      return MakeByteBpe(spec, vocabulary);
    case TokenizerKind::kSentencePieceBpe:
      return MakeSentencePieceBpe(spec, vocabulary);
    case TokenizerKind::kUnigram:
      return MakeUnigram(spec, vocabulary);
    case TokenizerKind::kGreedy:
      return MakeGreedy(spec, vocabulary);
    case TokenizerKind::kWordPiece:
      return MakeWordPiece(spec, vocabulary);
  }
  Throw(ErrorCode::kUnsupported, "{}: unknown kind of tokenizer {}", spec.source,
        static_cast<int>(spec.kind));
}

AddedTokens FindAdded(const TokenizerSpec& spec) {
  std::vector<AddedTokenFlags> flags(spec.tokens.size());
  for (const AddedTokenFlags& f : spec.added) flags[static_cast<size_t>(f.id)] = f;
  AddedTokens added;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const bool control = spec.types[i] == TokenType::kControl;
    const bool splits = spec.split_user_defined || spec.kind == TokenizerKind::kByteBpe;
    const bool before_model = splits && !flags[i].normalized;
    const bool user_defined = spec.types[i] == TokenType::kUserDefined && before_model;
    if (control || user_defined) {
      added.Add(spec.tokens[i], static_cast<int32_t>(i), control, flags[i]);
    }
  }
  return added;
}

}  // namespace

Tokenizer::Tokenizer(TokenizerSpec spec) : spec_(std::move(spec)) {
  eog_ = CheckAndComplete(&spec_);
  for (size_t i = 0; i < spec_.types.size(); ++i) {
    if (spec_.types[i] == TokenType::kUnused) unused_.push_back(static_cast<int32_t>(i));
  }
  auto impl = std::make_unique<Impl>();
  FillVocabulary(spec_, &impl->vocabulary);
  impl->model = MakeModel(spec_, impl->vocabulary);
  impl->added = FindAdded(spec_);
  impl_ = std::move(impl);
  spec_.tokens = {};
  spec_.scores = {};
  spec_.merges = {};
  spec_.precompiled_charsmap = {};
}

Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  const TextSegment segment{text, options.parse_special};
  return Encode({&segment, 1}, options.add_special);
}

std::vector<int32_t> Tokenizer::Encode(std::span<const TextSegment> segments,
                                       bool add_special) const {
  size_t total = 0;
  std::vector<Stretch> stretches;
  for (const TextSegment& segment : segments) {
    if (segment.text.size() > static_cast<size_t>(kMaxTextBytes) - total) {
      Throw(ErrorCode::kInvalidArgument, "text to tokenize: expected at most {} bytes, found more",
            kMaxTextBytes);
    }
    total += segment.text.size();
    if (segment.text.empty()) continue;
    if (stretches.empty() || stretches.back().parse_special != segment.parse_special) {
      stretches.push_back({total, segment.parse_special});
    } else {
      stretches.back().end = total;
    }
  }
  std::string joined;
  std::string_view text = segments.empty() ? std::string_view() : segments[0].text;
  if (segments.size() > 1) {
    joined.reserve(total);
    for (const TextSegment& segment : segments) joined.append(segment.text);
    text = joined;
  }

  std::vector<int32_t> ids;
  ids.reserve(total / 4 + 4);
  FragmentPlace place = FragmentPlace::kFirst;
  for (size_t at = 0; at < text.size();) {
    const auto match = impl_->added.Next(text, at, stretches);
    const size_t end = match ? match->begin : text.size();
    if (end > at) {
      impl_->model->Encode(text.substr(at, end - at), place, &ids);
      place = FragmentPlace::kElsewhere;
    }
    if (!match) break;
    ids.push_back(match->id);
    if (IsControl(match->id)) {
      place = FragmentPlace::kAfterSpecial;
    } else if (spec_.split_user_defined) {
      place = FragmentPlace::kElsewhere;
    }
    at = match->end;
  }
  if (add_special && spec_.add_bos && (ids.empty() || ids.front() != spec_.bos)) {
    ids.insert(ids.begin(), spec_.bos);
  }
  if (add_special && spec_.add_eos) ids.push_back(spec_.eos);
  return ids;
}

Tokenizer::Pair Tokenizer::EncodePair(std::string_view first, std::string_view second) const {
  if (spec_.pair.empty()) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a form for two texts (post_processor's pair), found none", spec_.source);
  }
  Pair pair;
  for (const PairPart& part : spec_.pair) {
    if (part.kind == PairPart::Kind::kToken) {
      pair.ids.push_back(part.token);
    } else {
      const auto ids =
          Encode(part.kind == PairPart::Kind::kFirst ? first : second, {.add_special = false});
      pair.ids.insert(pair.ids.end(), ids.begin(), ids.end());
    }
    pair.types.resize(pair.ids.size(), part.type);
  }
  return pair;
}

void Tokenizer::CheckId(int32_t id) const {
  if (id < 0 || id >= vocab_size()) {
    Throw(ErrorCode::kInvalidArgument, "token id: expected 0 to {}, found {}", vocab_size() - 1,
          id);
  }
}

void Tokenizer::AppendBytes(int32_t id, const DecodeOptions& options, bool* at_start,
                            std::string* out) const {
  const bool control = IsControl(id);
  if (control && !options.render_special) return;
  std::string_view bytes = impl_->vocabulary.bytes[id];
  const bool prefixed =
      spec_.kind != TokenizerKind::kByteBpe && options.strip_space_prefix && spec_.strips_space &&
      (spec_.space_prefix != SpacePrefix::kNever || spec_.remove_extra_whitespaces);
  const TokenType type = Type(id);
  const bool spelled =
      type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
  if (*at_start && prefixed && spelled && bytes.starts_with(' ')) {
    bytes.remove_prefix(1);
    // Where extra spaces are removed none of the leading ones was in the text.
    *at_start = spec_.remove_extra_whitespaces && bytes.empty();
  } else if (!bytes.empty()) {
    *at_start = false;
  }
  out->append(bytes);
}

std::string Tokenizer::DecodeBytes(std::span<const int32_t> ids,
                                   const DecodeOptions& options) const {
  std::string out;
  bool at_start = true;
  for (const int32_t id : ids) {
    CheckId(id);
    AppendBytes(id, options, &at_start, &out);
  }
  return out;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  return ToValidUtf8(DecodeBytes(ids, options));
}

std::string_view Tokenizer::TokenText(int32_t id) const {
  CheckId(id);
  return impl_->vocabulary.texts[id];
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  CheckId(id);
  return impl_->vocabulary.bytes[id];
}

TokenType Tokenizer::Type(int32_t id) const {
  CheckId(id);
  return spec_.types[static_cast<size_t>(id)];
}

bool Tokenizer::IsEndOfGeneration(int32_t id) const {
  return std::binary_search(eog_.begin(), eog_.end(), id);
}

std::optional<int32_t> Tokenizer::Find(std::string_view token_text) const {
  const int32_t id = impl_->vocabulary.by_text.Find(token_text);
  return id < 0 ? std::nullopt : std::optional(id);
}

bool Tokenizer::EncodesAllBytes() const {
  const auto& ids = impl_->vocabulary.byte_ids;
  return std::all_of(std::begin(ids), std::end(ids), [](int32_t id) { return id >= 0; });
}

std::string StreamDetokenizer::Append(int32_t id) {
  tokenizer_->CheckId(id);
  tokenizer_->AppendBytes(id, options_, &at_start_, &pending_);
  std::string out;
  pending_.erase(0, AppendValidUtf8(pending_, &out));
  return out;
}

std::string StreamDetokenizer::Flush() {
  std::string out = ToValidUtf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace bakestone
