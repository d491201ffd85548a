#include "train/text_watch.h"

#include <algorithm>
#include <numbers>
#include <span>

#include "base/error.h"
#include "data/source_plan.h"
#include "train/stage_run.h"

namespace bakestone {
namespace {

constexpr int64_t kPiece = 512;         // tokens seen together, as eval/text_score.h has it
constexpr int64_t kBytesPerToken = 64;  // of long pieces, with room to spare

double BitsPerByte(double nats, int64_t bytes) {
  return nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(1, bytes));
}

WatchedText ReadWatchedText(const Model& model, const DataSource& source, bool general,
                            int64_t max_tokens, ThreadPool* pool) {
  const std::string text = TextToScoreOf(source, max_tokens * kBytesPerToken, {.pool = pool});
  std::vector<int32_t> tokens = model.tokenizer.Encode(text, {.add_special = false});
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(max_tokens)));
  WatchedText watched{.name = source.name, .general = general};
  const auto piece = static_cast<size_t>(std::min(kPiece, model.config.context_length));
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += piece) {
    const auto part = std::span(tokens).subspan(begin, std::min(piece, tokens.size() - begin));
    Sample sample;
    sample.tokens.assign(part.begin(), part.end());
    sample.trained.assign(part.size(), 1);
    sample.trained[0] = 0;
    sample.num_trained = static_cast<int64_t>(part.size()) - 1;
    for (const int32_t token : part.subspan(1)) {
      watched.bytes += static_cast<int64_t>(model.tokenizer.TokenBytes(token).size());
    }
    watched.pieces.push_back(std::move(sample));
  }
  if (watched.pieces.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected at least two tokens to score while training ([watch]), found {}",
          source.path.string(), tokens.size());
  }
  return watched;
}

}  // namespace

std::vector<WatchedText> ReadWatchedTexts(const Model& model, const Recipe& recipe,
                                          ThreadPool* pool) {
  std::vector<WatchedText> texts;
  for (const bool general : {false, true}) {
    for (const std::string& name : general ? recipe.watch.general : recipe.watch.domain) {
      texts.push_back(
          ReadWatchedText(model, recipe.Source(name), general, recipe.watch.tokens, pool));
    }
  }
  return texts;
}

TextWatch::TextWatch(const WatchRecipe& recipe, const std::vector<WatchedText>& texts,
                     int64_t num_steps, int64_t batch_tokens, StageRun* run)
    : recipe_(recipe),
      every_(recipe.steps > 0 ? recipe.steps : std::max<int64_t>(1, num_steps / 10)),
      run_(*run) {
  for (const WatchedText& source : texts) {
    std::vector<SampleView> views;
    for (const Sample& piece : source.pieces) views.push_back(piece.View());
    Text text{.source = &source, .batches = Pack(views, batch_tokens)};
    LossSums sums;
    for (const PackedBatch& batch : text.batches) sums += run_.EvaluateBase(batch);
    text.base_bits_per_byte = BitsPerByte(sums.nll, source.bytes);
    texts_.push_back(std::move(text));
  }
}

std::vector<TextReading> TextWatch::Measure() {
  std::vector<TextReading> readings;
  for (const Text& text : texts_) {
    LossSums sums;
    for (const PackedBatch& batch : text.batches) {
      sums += run_.Evaluate(batch, text.source->general);
    }
    readings.push_back({.name = text.source->name,
                        .general = text.source->general,
                        .bits_per_byte = BitsPerByte(sums.nll, text.source->bytes),
                        .base_bits_per_byte = text.base_bits_per_byte,
                        .kl = sums.kl / std::max(1.0, sums.weight)});
  }
  return readings;
}

std::vector<TextReading> TextWatch::AfterStep(int64_t step, double seconds, bool last) {
  const bool due =
      recipe_.seconds > 0 ? seconds - last_seconds_ >= recipe_.seconds : step % every_ == 0;
  if (texts_.empty() || (!due && !last)) return {};
  last_seconds_ = seconds;
  return Measure();
}

std::vector<std::string> ForgettingWatch::Look(int64_t step,
                                               const std::vector<TextReading>& readings) {
  std::vector<std::string> warnings;
  for (const TextReading& reading : readings) {
    if (!reading.general || reading.Change() <= kForgotten || !named_.insert(reading.name).second) {
      continue;
    }
    warnings.push_back(fmt::format(
        "step {}: the model forgets: general text '{}' costs {:.1f} % more bits than the "
        "base's; {}",
        step, reading.name, reading.Change() * 100, kForgettingRemedy));
  }
  return warnings;
}

}  // namespace bakestone
