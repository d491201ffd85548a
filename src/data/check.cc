#include "data/check.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "data/source_plan.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kExamples = 5;

Lengths LengthsOf(std::vector<int64_t>* values) {
  Lengths lengths;
  if (values->empty()) return lengths;
  std::sort(values->begin(), values->end());
  const auto at = [&](size_t percent) { return (*values)[(values->size() - 1) * percent / 100]; };
  lengths = {values->front(), at(5), at(50), at(95), values->back(), 0};
  for (const int64_t value : *values) lengths.sum += value;
  return lengths;
}

int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

struct Judged {
  int64_t characters = 0, tokens = 0;
  QualitySigns signs{};
  std::vector<PersonalFinding> personal;
  std::string example;  // of personal data
};

class Checker {
 public:
  Checker(const DataSource& source, const CheckOptions& options)
      : source_(source), options_(options) {}

  SourceReport Check() {
    ForEachBlock(
        source_, options_.pool, [this](RowBlock& block) { Take(block); }, &report_.container,
        &report_.unit);
    report_.characters = LengthsOf(&characters_);
    report_.tokens = LengthsOf(&tokens_);
    LookForDuplicates();
    return std::move(report_);
  }

 private:
  Judged Judge(const Row& row) const {
    Judged judged;
    const std::string text = row.AllText();
    judged.characters = Characters(text);
    judged.signs = JudgeQuality(text);
    judged.personal = FindPersonalData(text);
    if (!judged.personal.empty()) {
      const PersonalFinding& first = judged.personal.front();
      judged.example = fmt::format("{} {}", PersonalKindName(first.kind),
                                   text.substr(first.begin, first.end - first.begin));
    }
    if (options_.count_tokens) judged.tokens = options_.count_tokens(row);
    return judged;
  }

  void Take(RowBlock& block) {
    std::vector<Judged> judged(block.rows.size());
    const auto work = [&](int64_t begin, int64_t end, int) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        if (block.rows[i].row) judged[i] = Judge(*block.rows[i].row);
      }
    };
    if (options_.pool != nullptr) {
      options_.pool->ParallelFor(static_cast<int64_t>(judged.size()), 8, work);
    } else {
      work(0, static_cast<int64_t>(judged.size()), 0);
    }
    for (size_t i = 0; i < judged.size(); ++i) Count(block.raw[i], block.rows[i], judged[i]);
    if (options_.progress) options_.progress(block.progress);
  }

  void Count(const RawRow& raw, const ParsedRow& parsed, const Judged& judged) {
    ++report_.rows;
    numbers_.push_back(raw.number);
    if (!parsed.row) {
      ++report_.rejected;
      if (report_.rejects.size() < kExamples) {
        report_.rejects.push_back({raw.number, parsed.problem});
      }
      return;
    }
    ++report_.formats[std::string(RowFormatName(parsed.row->format))];
    characters_.push_back(judged.characters);
    if (options_.count_tokens) tokens_.push_back(judged.tokens);
    for (size_t sign = 0; sign < judged.signs.size(); ++sign) {
      if (!judged.signs[sign]) continue;
      ++report_.signs[sign];
      if (report_.sign_lines[sign].size() < kExamples) {
        report_.sign_lines[sign].push_back(raw.number);
      }
    }
    for (const PersonalFinding& finding : judged.personal) {
      ++report_.personal[static_cast<size_t>(finding.kind)];
    }
    if (judged.personal.empty()) return;
    ++report_.personal_rows;
    if (report_.personal_examples.size() < kExamples) {
      report_.personal_examples.push_back({raw.number, judged.example});
    }
  }

  void LookForDuplicates() {
    DataSource source = source_;
    source.duplicates = DuplicatePolicy::kNear;
    const SourcePlan near = PlanSource(source, {.pool = options_.pool});
    report_.exact_duplicates = near.Count(RowFate::kExactDuplicate);
    report_.near_duplicates = near.Count(RowFate::kNearDuplicate);
    for (size_t i = 0; i < near.fates.size() && report_.duplicate_examples.size() < kExamples;
         ++i) {
      if (near.fates[i] != RowFate::kNearDuplicate && near.fates[i] != RowFate::kExactDuplicate) {
        continue;
      }
      report_.duplicate_examples.push_back(
          {numbers_[i],
           fmt::format("{} {}", report_.unit, numbers_[static_cast<size_t>(near.twins[i])])});
    }
    const SourcePlan plan = source_.duplicates == DuplicatePolicy::kNear || !NeedsPlan(source_)
                                ? near
                                : PlanSource(source_, {.pool = options_.pool});
    report_.heldout_rows = plan.Count(RowFate::kHeldOut);
    report_.train_rows =
        NeedsPlan(source_) ? plan.Count(RowFate::kTrain) : report_.rows - report_.rejected;
    report_.groups = plan.groups;
    report_.largest_group = plan.largest_group;
  }

  const DataSource& source_;
  const CheckOptions& options_;
  SourceReport report_;
  std::vector<int64_t> numbers_, characters_, tokens_;
};

Json ToJson(const Lengths& lengths) {
  return {{"least", lengths.least}, {"p5", lengths.p5},     {"median", lengths.median},
          {"p95", lengths.p95},     {"most", lengths.most}, {"sum", lengths.sum}};
}

Json ToJson(const std::vector<Example>& examples) {
  Json json = Json::array();
  for (const Example& example : examples) {
    json.push_back({{"line", example.line}, {"text", example.text}});
  }
  return json;
}

}  // namespace

SourceReport CheckSource(const DataSource& source, const CheckOptions& options) {
  return Checker(source, options).Check();
}

Json ToJson(const SourceReport& report) {
  Json signs = Json::object(), personal = Json::object();
  for (size_t i = 0; i < report.signs.size(); ++i) {
    if (report.signs[i] == 0) continue;
    signs[std::string(QualitySignName(static_cast<QualitySign>(i)))] = {
        {"rows", report.signs[i]}, {"lines", report.sign_lines[i]}};
  }
  for (size_t i = 0; i < report.personal.size(); ++i) {
    if (report.personal[i] > 0) {
      personal[std::string(PersonalKindName(static_cast<PersonalKind>(i)))] = report.personal[i];
    }
  }
  return {{"container", report.container},
          {"formats", report.formats},
          {"rows", report.rows},
          {"rejected", report.rejected},
          {"rejects", ToJson(report.rejects)},
          {"exact_duplicates", report.exact_duplicates},
          {"near_duplicates", report.near_duplicates},
          {"duplicates", ToJson(report.duplicate_examples)},
          {"train_rows", report.train_rows},
          {"heldout_rows", report.heldout_rows},
          {"groups", report.groups},
          {"largest_group", report.largest_group},
          {"characters", ToJson(report.characters)},
          {"tokens", ToJson(report.tokens)},
          {"signs", signs},
          {"personal", personal},
          {"personal_rows", report.personal_rows},
          {"personal_examples", ToJson(report.personal_examples)}};
}

}  // namespace bakestone
