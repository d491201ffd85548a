// The grammar, of sentencepiece_model.proto, as far as it is read (field number: meaning):
//
//   ModelProto      1: SentencePiece, repeated;  2: TrainerSpec;  3: NormalizerSpec
//   SentencePiece   1: piece, string;  2: score, float;  3: type, enum (1 normal, 2 unknown, 3
//                   control, 4 user-defined, 5 unused, 6 byte)
//   TrainerSpec     3: model_type, enum (1 unigram, 2 BPE);  35: byte_fallback, bool;
//                   40..43: ids of unk, bos, eos, pad
//   NormalizerSpec  2: precompiled_charsmap, bytes;  3: add_dummy_prefix, bool;
//                   4: remove_extra_whitespaces, bool
//
// A field is a varint key (number << 3 | wire type) and a value: 0 a varint, 1 eight bytes, 2 a
// varint length and that many bytes, 5 four bytes.
#include "format/sentencepiece_model.h"

#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr size_t kMaxPieces = size_t{1} << 24;

struct Field {
  uint32_t number = 0, wire = 0;
  uint64_t integer = 0;            // wire types 0, 1, 5
  std::span<const uint8_t> bytes;  // wire type 2

  float real() const {
    const auto bits = static_cast<uint32_t>(integer);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};

class Message {
 public:
  Message(std::span<const uint8_t> bytes, const std::string& source)
      : bytes_(bytes), source_(source) {}

  // The next field; nullopt at the end.
  std::optional<Field> Next() {
    if (at_ == bytes_.size()) return std::nullopt;
    const uint64_t key = Varint();
    Field field{.number = static_cast<uint32_t>(key >> 3), .wire = static_cast<uint32_t>(key & 7)};
    switch (field.wire) {
      case 0:
        field.integer = Varint();
        break;
      case 1:
        field.integer = Fixed(8);
        break;
      case 2:
        field.bytes = Take(Varint());
        break;
      case 5:
        field.integer = Fixed(4);
        break;
      default:
        Throw(ErrorCode::kCorrupt, "{}: byte {}: expected a field of a known wire type, found {}",
              source_, at_, field.wire);
    }
    return field;
  }

 private:
  std::span<const uint8_t> Take(uint64_t size) {
    if (size > bytes_.size() - at_) {
      Throw(ErrorCode::kCorrupt, "{}: byte {}: expected {} more bytes, found {}", source_, at_,
            size, bytes_.size() - at_);
    }
    const auto taken = bytes_.subspan(at_, static_cast<size_t>(size));
    at_ += static_cast<size_t>(size);
    return taken;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Take(1)[0];
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    Throw(ErrorCode::kCorrupt, "{}: byte {}: expected a number of at most 10 bytes", source_, at_);
  }
  uint64_t Fixed(size_t size) {
    const auto bytes = Take(size);
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), size);  // little-endian, as this program runs
    return value;
  }

  std::span<const uint8_t> bytes_;
  const std::string& source_;
  size_t at_ = 0;
};

class ModelReader {
 public:
  explicit ModelReader(std::string source) : source_(std::move(source)) {
    spec_.source = source_;
    spec_.kind = TokenizerKind::kUnigram;  // the format's default
    spec_.byte_fallback = false;
    spec_.remove_extra_whitespaces = true;
    spec_.bos = 1;
    spec_.eos = 2;
    spec_.unk = 0;
  }

  TokenizerSpec Read(std::span<const uint8_t> bytes) {
    Message model(bytes, source_);
    while (const auto field = model.Next()) {
      if (field->wire != 2) continue;
      if (field->number == 1) ReadPiece(field->bytes);
      if (field->number == 2) ReadTrainer(field->bytes);
      if (field->number == 3) ReadNormalizer(field->bytes);
    }
    if (spec_.tokens.empty()) {
      Throw(ErrorCode::kCorrupt, "{}: expected a SentencePiece model, found no pieces", source_);
    }
    spec_.add_bos = spec_.kind == TokenizerKind::kSentencePieceBpe && spec_.bos >= 0;
    return std::move(spec_);
  }

 private:
  void ReadPiece(std::span<const uint8_t> bytes) {
    if (spec_.tokens.size() == kMaxPieces) {
      Throw(ErrorCode::kCorrupt, "{}: expected at most {} pieces, found more", source_, kMaxPieces);
    }
    std::string piece;
    float score = 0;
    uint64_t type = 1;
    Message message(bytes, source_);
    while (const auto field = message.Next()) {
      if (field->number == 1 && field->wire == 2) {
        piece.assign(field->bytes.begin(), field->bytes.end());
      }
      if (field->number == 2 && field->wire == 5) score = field->real();
      if (field->number == 3 && field->wire == 0) type = field->integer;
    }
    if (type < 1 || type > 6) {
      Throw(ErrorCode::kCorrupt, "{}: piece {}: type: expected 1 to 6, found {}", source_,
            spec_.tokens.size(), type);
    }
    spec_.tokens.push_back(std::move(piece));
    spec_.scores.push_back(score);
    spec_.types.push_back(static_cast<TokenType>(type));
  }

  void ReadTrainer(std::span<const uint8_t> bytes) {
    Message message(bytes, source_);
    while (const auto field = message.Next()) {
      if (field->wire != 0) continue;
      const auto id = static_cast<int32_t>(static_cast<int64_t>(field->integer));  // -1: none
      switch (field->number) {
        case 3:
          if (field->integer != 1 && field->integer != 2) {
            Throw(ErrorCode::kUnsupported,
                  "{}: model_type: expected 1 (unigram) or 2 (BPE), found {}", source_,
                  field->integer);
          }
          spec_.kind =
              field->integer == 1 ? TokenizerKind::kUnigram : TokenizerKind::kSentencePieceBpe;
          break;
        case 35:
          spec_.byte_fallback = field->integer != 0;
          break;
        case 40:
          spec_.unk = id;
          break;
        case 41:
          spec_.bos = id;
          break;
        case 42:
          spec_.eos = id;
          break;
        case 43:
          spec_.pad = id;
          break;
        default:
          break;
      }
    }
  }

  void ReadNormalizer(std::span<const uint8_t> bytes) {
    Message message(bytes, source_);
    while (const auto field = message.Next()) {
      if (field->number == 2 && field->wire == 2) {
        spec_.precompiled_charsmap.assign(field->bytes.begin(), field->bytes.end());
      }
      if (field->number == 3 && field->wire == 0 && field->integer == 0) {
        spec_.space_prefix = SpacePrefix::kNever;
      }
      if (field->number == 4 && field->wire == 0) {
        spec_.remove_extra_whitespaces = field->integer != 0;
      }
    }
  }

  std::string source_;
  TokenizerSpec spec_;
};

}  // namespace

TokenizerSpec FromSentencePieceModel(std::span<const uint8_t> bytes, std::string source) {
  return ModelReader(std::move(source)).Read(bytes);
}

}  // namespace bakestone
