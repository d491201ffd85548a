#include "train/step_log.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train/trainer.h"

namespace bakestone {

StepLog::StepLog(const std::filesystem::path& path, int64_t keep_bytes) : path_(path) {
  std::error_code code;
  std::filesystem::create_directories(path.parent_path(), code);
  if (std::filesystem::exists(path)) {
    const auto size = std::filesystem::file_size(path);
    std::filesystem::resize_file(path, std::min<uintmax_t>(size, static_cast<uintmax_t>(keep_bytes)));
  }
  file_.open(path, std::ios::app);
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot open for writing", path.string());
}

void StepLog::Append(const StepReport& report) {
  nlohmann::ordered_json line = {{"step", report.step},
                                  {"loss", report.loss},
                                  {"accuracy", report.accuracy},
                                  {"replay_loss", report.replay_loss},
                                  {"learning_rate", report.learning_rate},
                                  {"gradient_norm", report.gradient_norm},
                                  {"tokens", report.tokens},
                                  {"seconds", report.seconds}};
  if (report.reward_margin != 0) line["reward_margin"] = report.reward_margin;
  if (report.heldout_loss) line["heldout_loss"] = *report.heldout_loss;
  file_ << line.dump() << '\n';
}

int64_t StepLog::Sync() {
  file_.flush();
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot write; is the disk full?", path_.string());
  return static_cast<int64_t>(file_.tellp());
}

}  // namespace bakestone
