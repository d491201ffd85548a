// Trains one stage of a recipe: the loop around model/trainer_pass.h. Same seed, same bits: for any
// number of threads, and for a run that was stopped (or killed) and resumed.
//
// A step is `batch` samples of the stage's data, plus replay pieces up to their share of its
// tokens, packed into micro-batches. The loss is summed over tokens and divided by the step's
// trained tokens, so that the split into micro-batches changes nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "model/model.h"
#include "model/trainer_pass.h"
#include "tensor/aligned_vector.h"
#include "train/dataset.h"
#include "train/recipe.h"
#include "train/text_watch.h"

namespace bakestone {

// How a question file is answered without sampling.
struct AnswerScore {
  double right = 0;  // share of the questions whose whole answer is the file's, token by token
  double loss = 0;   // mean nats a token of the file's answers
};

struct StepReport {
  int64_t step = 0, num_steps = 0;  // done of all
  double loss = 0;         // mean nats a trained token (DPO's loss a preference), this step
  double accuracy = 0;     // share of the trained tokens (preferences) that are right
  double replay_loss = 0;  // mean nats a replayed token (KL or next-token), this step
  double learning_rate = 0, gradient_norm = 0;
  double reward_margin =
      0;  // preferences: how much likelier than before the chosen became than the rejected
  // After this step, where they were measured.
  std::optional<double> heldout_loss;
  std::optional<double> heldout_accuracy;  // of tokens or preferences, as accuracy
  std::optional<AnswerScore> answers;      // of the stage's question file
  std::vector<TextReading> texts;          // likewise: the texts that are watched
  int64_t tokens = 0;                      // processed in this stage so far, replay included
  double seconds = 0;                 // training in this stage so far, interruptions not counted
  double flop = 0, step_seconds = 0;  // operations that this step needed, and its time
};

// Values on the way, of a stage that keeps some.
struct KeptValues {
  int64_t step = 0,
          best_step = -1;  // best_step: of the lowest held-out loss so far; -1: none was measured
  std::span<const float> masters;  // [layout.size]
};

// What the caller sees of a run, on the training thread.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void OnStart(const StepReport&) {
  }  // before the first step, with the texts that are watched, if any
  virtual void OnStep(const StepReport&) {}
  virtual void OnTrouble(const std::string& /*what*/) {}  // the loss leaps, gradients grow
  // After the looks at the held-out side (without one: as often), where the stage keeps values; and
  // with those of the last checkpoint where a stage ends because its loss is no longer a number.
  virtual void OnKeep(const KeptValues&) {}
  // Between steps: may publish the adapter and ask it something; must not change or keep it.
  virtual void Between(Adapter&) {}
  virtual bool Cancelled() { return false; }
};

// What backward needs of the layers: kept, or computed again (less memory, about a third slower,
// the same bits). kAuto: as memory allows (memory_choice.h); kept, where nobody chose.
enum class Activation { kAuto, kStash, kRecompute };

struct TrainOptions {
  std::filesystem::path folder;    // of this stage: checkpoint.bin, log.jsonl, result.bin
  double checkpoint_seconds = 60;  // at most this much work is lost
  int64_t checkpoint_steps = 0;    // also after every so many steps; 0: by time alone
  int64_t batch_tokens = 1024;     // rows of a micro-batch
  Activation activation = Activation::kAuto;
  int64_t weight_cache_bytes = int64_t{1} << 30;  // of weights as bf16 that are kept between layers
};

struct StageData {
  Dataset train;
  Dataset heldout;                     // of the sources that are split; else empty
  Dataset answers;                     // questions with their answers, of a stage that has some
  Dataset replay;                      // empty without replay
  std::vector<WatchedText> watched;    // scored while it trains; no part of the others
  std::vector<SourceSummary> sources;  // of train, then of replay
};

struct StageDataOptions {
  ThreadPool* pool = nullptr;
  std::filesystem::path
      rejects;  // folder for the rows that are not used; empty: they are not written
  std::filesystem::path cache;  // folder for the samples; empty: in memory
  // what: "tokenizing NAME". May throw to stop.
  std::function<void(const std::string& what, const ReadProgress&)> progress = {};
};

// Reads and checks what the stage trains on.
StageData ReadStageData(const Model& model, const ChatEncoder& encode_chat, const Recipe& recipe,
                        const StageRecipe& stage, const StageDataOptions& options = {});

// epoch_size: units that an epoch draws (Dataset).
int64_t NumSteps(const StageRecipe& stage, int64_t epoch_size);

// Learning rate of a step: linear warm-up, then the schedule's way to final_rate of the peak.
double LearningRate(const StageRecipe& stage, int64_t step, int64_t num_steps);

struct StageOutcome {
  AlignedVector<float> masters;  // [layout.size], what the next stage starts from
  StepReport last;
  bool resumed = false;        // from a checkpoint
  bool reused = false;         // the stage was done before; nothing was trained
  bool stopped_early = false;  // the held-out side got no better
  int64_t best_step = -1;  // of the lowest held-out loss, or most answers; -1: none was measured
  double best_loss = 0;
  double best_answers = 0;  // share of the question file that was answered then
  int64_t peak_bytes = 0;   // of the pass; 0 where nothing was trained
};

// True if the folder has a checkpoint or a result of this key; false if it has none or of another.
bool HasStageState(const std::filesystem::path& folder, const std::string& key);

// The masters of a finished stage. Throws kNotFound or kInvalidArgument (another key).
AlignedVector<float> ReadStageResult(const std::filesystem::path& folder, const std::string& key,
                                     const TrainLayout& layout);

// key: identifies base, data, recipe and initial masters; a checkpoint or result with another key
// is refused. Throws kCancelled when the observer asks for it; what is on disk then resumes.
StageOutcome TrainStage(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                        const StageData& data, AlignedVector<float> initial_masters,
                        const std::string& key, const KernelTable& kernels, ThreadPool& pool,
                        const TrainOptions& options, TrainObserver& observer);

}  // namespace bakestone
