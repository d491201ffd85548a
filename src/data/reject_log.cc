#include "data/reject_log.h"

#include <nlohmann/json.hpp>

namespace bakestone {

void RejectLog::Add(const RawRow& row, const std::string& reason) {
  constexpr size_t kShown = 200;
  if (path_.empty()) return;
  if (!file_) file_.emplace(path_);
  const nlohmann::ordered_json line = {
      {"line", row.number}, {"reason", reason}, {"row", row.bytes.substr(0, kShown)}};
  file_->Write(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void RejectLog::Finish() {
  if (file_) {
    file_->Commit();
    file_.reset();
  } else if (!path_.empty()) {
    std::error_code code;
    std::filesystem::remove(path_, code);
  }
}

}  // namespace bakestone
