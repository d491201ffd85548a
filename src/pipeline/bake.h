// The whole road from one recipe: licence, data check, evaluation before, training stages, export,
// evaluation after, and one answer through the server. Every stage is recorded (lineage.h), so a
// second run does only what is missing and an interrupted one goes on where it stopped.
//
//   work folder: licence.json  data.json  before.json  train-NAME/{checkpoint,result}.bin,
//                log.jsonl
//                base.gguf (with [add_tokens] or [chat])  adapter/ (PEFT)  adapter.gguf or
//                model.gguf
//                                               after.json  served.json  lineage.json
//                kept/STAGE-STEP/ (as adapter/ and the files beside it)
//                rejected/STAGE-SOURCE.jsonl
//                report.md  report.json  plots/STAGE.svg
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "pipeline/step_history.h"
#include "store/licence.h"
#include "train/find_rate.h"
#include "train/recipe.h"
#include "train/trainer.h"

namespace bakestone {

// What a user sees while it runs; called on the thread that runs the bake.
class BakeObserver {
 public:
  virtual ~BakeObserver() = default;
  virtual void OnStage(const std::string& /*name*/, const std::string& /*what*/) {}
  virtual void OnReused(const std::string& /*name*/) {}  // done before, nothing to do
  virtual void OnLine(const std::string& /*line*/) {}
  virtual void OnWarning(const std::string& /*line*/) {}
  virtual void OnProgress(const std::string& /*label*/, int64_t /*done*/, int64_t /*total*/,
                          const std::string& /*unit*/, const std::string& /*note*/) {}
  // The held-out question asked now and then while it trains.
  virtual void OnProbe(const AnsweredQuestion&, double /*training_seconds*/) {}
  virtual bool Cancelled() { return false; }
};

struct BakeOptions {
  std::filesystem::path model;   // the base's GGUF
  std::filesystem::path folder;  // work folder
  std::string version;           // of this program, for the record
  std::string from;              // repeat from this stage on; empty: only what is missing
  std::string find_rate;         // name of a stage: only look for its learning rate; empty: no
  bool dry_run = false;          // only say what would be done: data, settings, memory, steps
  bool train_only = false;       // training stages and export, no evaluation, no server
  double probe_seconds = 20;     // between questions while training; 0: none
  std::filesystem::path sample_cache;  // folder for tokenized data; empty: it is kept in memory
  LoadOptions load;                    // of the base
  TrainOptions train;                  // .folder is set by the bake
};

struct TrainedStage {
  std::string name, method;
  int64_t steps = 0, tokens = 0;
  double seconds = 0;
  int64_t best_step = -1;  // of the lowest held-out loss; -1: none was measured
  double best_loss = 0;
  double best_answers = -1;  // share of the question file that was answered then; -1: none is asked
  bool stopped_early = false;
  std::vector<TextHistory> texts;  // that were scored while it trained
};

struct BakeReport {
  std::string name, base, recipe;
  std::filesystem::path folder;
  std::filesystem::path model;  // what was trained: the base, or what the recipe made of it
  std::optional<Evaluation> before, after;
  std::vector<std::string> shown;  // ids of the questions to print side by side
  DerivedLicence licence;
  std::vector<LicensedPart> parts;  // base first
  std::optional<RateFinding> rate;  // with find_rate: nothing else was done
  std::vector<TrainedStage> trained;
  int64_t train_tokens = 0;
  double train_seconds = 0, seconds = 0, joules = 0;
  bool joules_measured = false;
  int64_t peak_bytes = 0;        // largest of any stage
  std::filesystem::path result;  // adapter.gguf or model.gguf
  bool result_is_adapter = true;
  int64_t base_bytes = 0, result_bytes = 0;
  std::string served_question, served_answer;
  int64_t reused_stages = 0, stages = 0;
};

// Stage names in order: licence, data, before, the recipe's own, export, after, serve.
std::vector<std::string> BakeStages(const Recipe& recipe, bool train_only);

// Throws Error; kCancelled after Ctrl-C (run again to go on).
BakeReport Bake(const Recipe& recipe, const BakeOptions& options, const KernelTable& kernels,
                ThreadPool& pool, BakeObserver& observer);

}  // namespace bakestone
