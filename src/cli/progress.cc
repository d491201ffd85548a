#include "cli/progress.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "cli/environment.h"

namespace bakestone::cli {
namespace {

constexpr int kBarWidth = 24;
constexpr double kLeastCounted = 0.05;  // seconds that a rate is counted over

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                      : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(std::max<int64_t>(total, 1)),
      terminal_(StderrIsTerminal()),
      start_(Clock::now()),
      last_draw_(start_) {}

Progress::~Progress() { Finish(); }

void Progress::Update(int64_t done, const std::string& note) {
  if (first_done_ < 0) {
    first_done_ = done;
    first_update_ = Clock::now();
  }
  done_ = done;
  note_ = note;
  const double since = std::chrono::duration<double>(Clock::now() - last_draw_).count();
  if (since >= (terminal_ ? 0.2 : 10.0)) Draw(false);
}

void Progress::Print(const std::string& line) {
  Erase();
  fmt::print(stderr, "{}\n", line);
  if (terminal_ && !finished_) Draw(false);
}

void Progress::Finish() {
  if (finished_) return;
  finished_ = true;
  Draw(true);
}

void Progress::Draw(bool last) {
  last_draw_ = Clock::now();
  const double elapsed = std::chrono::duration<double>(last_draw_ - start_).count();
  const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  // What was there at the first word of it (a run that goes on, a block that is done) took no time
  // that is known here.
  const double counted = std::chrono::duration<double>(last_draw_ - first_update_).count();
  const double rate = done_ > first_done_ && counted > kLeastCounted
                          ? static_cast<double>(done_ - first_done_) / counted
                          : 0;
  const std::string time = last || rate <= 0
                               ? Duration(elapsed)
                               : Duration(static_cast<double>(total_ - done_) / rate) + " left";
  const std::string text =
      fmt::format("{} {:3.0f} %  {}/{} {}{}  {}{}{}", label_, share * 100, done_, total_, unit_,
                  rate > 0 ? fmt::format("  {:.{}f}/s", rate, rate < 10 ? 1 : 0) : "", time,
                  note_.empty() ? "" : "  ", note_);
  if (!terminal_) {
    fmt::print(stderr, "{}\n", text);
    return;
  }
  const int filled = static_cast<int>(share * kBarWidth);
  Erase();
  fmt::print(stderr, "[{}{}] {}", std::string(static_cast<size_t>(filled), '='),
             std::string(static_cast<size_t>(kBarWidth - filled), ' '), text);
  if (last) fmt::print(stderr, "\n");
  std::fflush(stderr);
  drawn_ = !last;
}

void Progress::Erase() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[2K");
  drawn_ = false;
}

}  // namespace bakestone::cli
