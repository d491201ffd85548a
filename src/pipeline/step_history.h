// A stage's log (train/step_log.h) as columns, and the plot of them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bakestone {

// A text that was scored while the stage trained.
struct TextHistory {
  std::string name;
  double base = 0;                          // bits a byte of the base
  std::vector<double> step, bits_per_byte;  // from step 0 on; one value at least
  std::vector<double> kl;  // general texts: KL to the base, nats a token; else empty

  bool general() const { return !kl.empty(); }
  double Change() const { return bits_per_byte.back() / base - 1; }  // against the base, at the end
};
nlohmann::ordered_json ToJson(const std::vector<TextHistory>& texts);

struct StepHistory {
  std::vector<double> step, loss, replay_loss, learning_rate, gradient_norm, tokens_per_second;
  std::vector<double> heldout_step, heldout_loss;
  std::vector<TextHistory> texts;
};

// Lines that are no JSON objects are left out; without a file everything is empty.
StepHistory ReadStepHistory(const std::filesystem::path& log);
std::string PlotOf(const std::string& stage, const StepHistory& history);

}  // namespace bakestone
