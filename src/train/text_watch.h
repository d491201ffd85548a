// Texts scored while a stage trains: what it gains and what it forgets, in bits a byte (so that
// languages and tokenizers compare), general ones also as KL to the base. A fixed slice of each
// text, with the arithmetic of training; the base is the same weights without what is trained, so
// there is no second model. Nothing here changes a trained bit.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "model/model.h"
#include "train/batches.h"
#include "train/recipe.h"

namespace bakestone {

class StageRun;
struct StageData;
struct StepReport;

// A general text may cost this share more than the base's before it counts as forgetting.
inline constexpr double kForgotten = 0.05;
inline constexpr char kForgettingRemedy[] =
    "replay general text beside your own ([stage.replay] with share 0.2 and kl_weight 1 to 4), or "
    "lower "
    "'learning_rate' or 'epochs'";

struct WatchedText {
  std::string name;
  bool general = false;        // else of the domain
  std::vector<Sample> pieces;  // in the text's order
  int64_t bytes = 0;           // of the predicted tokens: all but the first of each piece
};

struct TextReading {
  std::string name;
  bool general = false;
  double bits_per_byte = 0;
  double base_bits_per_byte = 0;  // the base's on the same slice
  double kl = 0;                  // general texts: mean KL(base || model) a token, nats

  double Change() const { return bits_per_byte / base_bits_per_byte - 1; }
};

// The recipe's watched texts, cut to their slices. Throws kInvalidArgument for a text of fewer than
// two tokens.
std::vector<WatchedText> ReadWatchedTexts(const Model& model, const Recipe& recipe,
                                          ThreadPool* pool);

// When they are scored, and by what. One thread.
class TextWatch {
 public:
  // Keeps references. With texts, runs the base over them once.
  TextWatch(const WatchRecipe& recipe, const std::vector<WatchedText>& texts, int64_t num_steps,
            int64_t batch_tokens, StageRun* run);

  // Of the values as they are.
  std::vector<TextReading> Measure();
  // What is due after a step, as it always is after the last one; else empty. seconds: on the run's
  // own clock.
  std::vector<TextReading> AfterStep(int64_t step, double seconds, bool last);

 private:
  struct Text {
    const WatchedText* source;
    std::vector<PackedBatch> batches;
    double base_bits_per_byte = 0;
  };

  const WatchRecipe& recipe_;
  const int64_t every_;
  StageRun& run_;
  std::vector<Text> texts_;
  double last_seconds_ = 0;
};

// Names a general text that is forgotten, once in a stage.
class ForgettingWatch {
 public:
  // What to say of a look; empty: nothing, or it was said.
  std::vector<std::string> Look(int64_t step, const std::vector<TextReading>& readings);

 private:
  std::set<std::string> named_;
};

}  // namespace bakestone
