#include "train/trend_watch.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace bakestone {
namespace {

constexpr int64_t kTrendSteps = 20;

}  // namespace

std::string TrendWatch::Look(const StepReport& report) {
  std::string words = Words(report);
  still_ = report.gradient_norm == 0;
  ++count_;
  const double weight = 1.0 / static_cast<double>(std::min<int64_t>(count_, kTrendSteps));
  const double change = report.loss - loss_;
  loss_ += weight * change;
  variance_ = (1 - weight) * (variance_ + weight * change * change);
  norm_ += weight * (report.gradient_norm - norm_);
  return words;
}

std::string TrendWatch::Words(const StepReport& report) const {
  if (report.gradient_norm == 0 && !still_) {
    return fmt::format(
        "step {}: the gradient is zero, so nothing is learnt; if that goes on, lower "
        "'learning_rate' (a "
        "model thrown far off answers the same to everything), or see whether the texts have "
        "tokens to "
        "learn",
        report.step);
  }
  if (count_ < kTrendSteps) return {};
  const double spread = std::sqrt(std::max(variance_, 1e-12));
  if (report.loss > loss_ + 6 * spread && report.loss > 1.3 * loss_) {
    return fmt::format("step {}: the loss leapt from about {:.2f} to {:.2f}", report.step, loss_,
                       report.loss);
  }
  if (norm_ > 0 && report.gradient_norm > 10 * norm_) {
    return fmt::format(
        "step {}: the gradient's norm is {:.1f}, ten times what it was ({:.1f}); if that goes on, "
        "lower "
        "'learning_rate'",
        report.step, report.gradient_norm, norm_);
  }
  return {};
}

}  // namespace bakestone
