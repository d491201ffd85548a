// The training half of a recipe: what is trained of the model and what each stage does. Read by
// recipe_stage.cc; docs/recipes.md lists every key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bakestone {

struct ReplayRecipe {
  std::string data;  // name of a source
  double share = 0;  // of the tokens of a step, [0, 0.9]
  double kl_weight =
      0;  // > 0: match the base's distribution (KL to base); 0: plain next-token loss
  int64_t length = 128;  // tokens of one piece
};

enum class TrainMethod { kPretrain, kSft, kDpo };
enum class Schedule { kCosine, kLinear, kWsd, kConstant };
enum class KeepPolicy { kLast, kBest };

struct StageRecipe {
  std::string name;
  TrainMethod method = TrainMethod::kSft;
  std::vector<std::string> data;  // names of sources
  double epochs = 1;
  int64_t batch = 8;              // samples (conversations, pieces of text, preferences) a step
  int64_t join = 1;               // conversations of a step under one system prompt, at most
  int64_t sequence_length = 512;  // longest sample, tokens
  double learning_rate = 5e-4;    // peak
  double embedding_rate = 0.1;    // share of it that rows of the embedding and the head take
  Schedule schedule = Schedule::kCosine;
  double final_rate = 0.1;  // share of the peak that the schedule ends at
  double warmup = 0.03;     // share of the steps
  double decay = 0.2;       // kWsd: share of the steps in which the rate falls
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double clip = 1.0;               // largest gradient norm
  double beta = 0.1;               // kDpo: how much the reference holds back
  bool length_normalized = false;  // kDpo: log-probabilities a token
  int64_t eval_steps = 0;          // between losses of the held-out side; 0: a tenth of the steps
  int64_t heldout_tokens = 20000;  // of the held-out side, from its start
  std::string answers;   // name of a source of questions with answers, judged as often; empty: none
  int64_t patience = 0;  // stop after so many looks without a better one; 0: never
  KeepPolicy keep = KeepPolicy::kLast;  // whose values the stage ends with
  int64_t keep_last = 0;                // values on the way that stay beside them, and the best
  std::optional<ReplayRecipe> replay;
  std::vector<std::string> defaults;  // "warmup 0.03": what the recipe does not state, for people
};

enum class AdapterKind { kLora, kRsLora, kDora, kFull };

struct LoraRecipe {
  AdapterKind kind = AdapterKind::kLora;
  int64_t rank = 16;
  double alpha = 32;
  std::vector<std::string> targets = {"all"};  // patterns of names: model/train_layout.h
  std::filesystem::path start;                 // an adapter to go on from; empty: none
  bool embeddings = false;  // beside pairs, the embedding and the head are trained, all of them
  bool new_tokens = false;  // beside pairs, their rows of new tokens are
  int64_t first_new = 0;    // the first of these, once the base has them
  std::vector<std::string> defaults;  // "rank 16": what the recipe does not state, for people

  bool rslora() const { return kind == AdapterKind::kRsLora; }
  bool full() const { return kind == AdapterKind::kFull; }
  // Whether rows of embedding and head are trained beside pairs: no adapter holds them.
  bool trains_rows() const { return !full() && (embeddings || new_tokens); }
  // Whether the result is an adapter that is served beside its base; else it is a whole model.
  bool served_as_adapter() const {
    return (kind == AdapterKind::kLora || kind == AdapterKind::kRsLora) && !trains_rows();
  }
};

const char* MethodName(TrainMethod method);     // for people: "continued pre-training"
const char* AdapterKindName(AdapterKind kind);  // as in recipes: "lora"

}  // namespace bakestone
