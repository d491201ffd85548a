// What an answer may say, token by token: the engine asks a TokenMask which tokens are legal next
// and tells it which one was drawn. Made by a layer above (grammar/); the engine knows nothing of
// grammars.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace bakestone {

// The state of one answer. Used by one thread at a time.
class TokenMask {
 public:
  virtual ~TokenMask() = default;

  // Sets the bits of the tokens that are legal next, a bit a token, the lowest first, and clears
  // all others. The tokens that end an answer are legal exactly where it is complete. Throws Error
  // where that takes too long.
  virtual void Fill(std::span<uint32_t> bits) = 0;

  // True where Fill may set bits of tokens that are not legal, because to find all of these takes
  // long. Then what is drawn has to be confirmed, and where it is not, drawn again from a narrower
  // mask.
  virtual bool over_approximates() const { return false; }
  // Whether a token whose bit Fill set is legal next.
  virtual bool Confirm(int32_t /*token*/) { return true; }
  // Clears bits of tokens that are not legal from what Fill or Narrow left, at least the bit of the
  // one that was not confirmed, and maybe some of legal ones. times: how often it was called for
  // this mask; from the second time on only legal tokens stay.
  virtual void Narrow(std::span<uint32_t> /*bits*/, int /*times*/) {}

  // The answer goes on with this token. False: it is not legal here, and nothing has changed.
  virtual bool Accept(int32_t token) = 0;

  // Takes the last tokens that were accepted back.
  virtual void Rollback(int64_t count) = 0;
};

// What a request asks for. Immutable; thread-safe.
class Constraint {
 public:
  virtual ~Constraint() = default;
  virtual std::unique_ptr<TokenMask> Begin() const = 0;
};

}  // namespace bakestone
