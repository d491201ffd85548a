#include "train/step_log.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train/trainer.h"

namespace bakestone {
namespace {

double SecondsSince1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

StepLog::StepLog(const std::filesystem::path& folder, int64_t keep_bytes, double seconds)
    : path_(folder / "log.jsonl") {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (std::filesystem::exists(path_)) {
    const auto size = std::filesystem::file_size(path_);
    std::filesystem::resize_file(path_,
                                 std::min<uintmax_t>(size, static_cast<uintmax_t>(keep_bytes)));
  }
  file_.open(path_, std::ios::app);
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot open for writing", path_.string());
  events_.emplace(folder, SecondsSince1970() - seconds);
}

void StepLog::AppendStart(const StepReport& report) {
  Values values;
  for (const TextReading& text : report.texts) {
    values.emplace_back("base_bits_per_byte/" + text.name, text.base_bits_per_byte);
  }
  Write(report, std::move(values));
}

void StepLog::Append(const StepReport& report) {
  Values values = {{"loss", report.loss},
                   {"accuracy", report.accuracy},
                   {"replay_loss", report.replay_loss},
                   {"learning_rate", report.learning_rate},
                   {"gradient_norm", report.gradient_norm}};
  if (report.reward_margin != 0) values.emplace_back("reward_margin", report.reward_margin);
  if (report.heldout_loss) values.emplace_back("heldout_loss", *report.heldout_loss);
  if (report.heldout_accuracy) values.emplace_back("heldout_accuracy", *report.heldout_accuracy);
  if (report.answers) {
    values.emplace_back("answers_right", report.answers->right);
    values.emplace_back("answers_loss", report.answers->loss);
  }
  Write(report, std::move(values));
}

void StepLog::Write(const StepReport& report, Values values) {
  for (const TextReading& text : report.texts) {
    values.emplace_back("bits_per_byte/" + text.name, text.bits_per_byte);
    if (text.general) values.emplace_back("kl_to_base/" + text.name, text.kl);
  }
  nlohmann::ordered_json line = {{"step", report.step}};
  for (const auto& [name, value] : values) line[name] = value;
  line["tokens"] = report.tokens;
  line["seconds"] = report.seconds;
  file_ << line.dump() << '\n';
  values.emplace_back("tokens", static_cast<double>(report.tokens));
  events_->Append(report.step, report.seconds, values);
}

int64_t StepLog::Sync() {
  file_.flush();
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot write; is the disk full?", path_.string());
  return static_cast<int64_t>(file_.tellp());
}

}  // namespace bakestone
