#include "cli/bench_report.h"

#include <cstdio>

#include <fmt/core.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json_depth.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

bool MoreIsBetter(const std::string& unit) { return unit == "tokens/s"; }

std::string ValueText(double value, const std::string& unit) {
  if (unit == "bytes") return fmt::format("{:.0f} MB", value * 1e-6);
  if (unit == "s") return fmt::format("{:.3f} s", value);
  return fmt::format("{:.1f}", value);
}

std::string ShareText(double share) {
  return share > 0 ? fmt::format("{:.0f} %", share * 100) : std::string();
}

std::string SpreadText(const Spread& value, const std::string& unit) {
  if (value.count < 2) return "one run";
  const double scale = unit == "bytes" ? 1e-6 : 1;
  const int digits = unit == "s" ? 3 : unit == "bytes" ? 0 : 1;
  return fmt::format("{:.{}f} .. {:.{}f} of {}", value.least * scale, digits, value.most * scale,
                     digits, value.count);
}

std::string RatioText(const BenchRow& row, const EarlierBench& earlier) {
  const auto found = earlier.medians.find(row.name);
  if (found == earlier.medians.end() || found->second <= 0 || row.value.median <= 0) return "-";
  const double ratio = row.value.median / found->second;
  return fmt::format("{:.2f}x", MoreIsBetter(row.unit) ? ratio : 1 / ratio);
}

}  // namespace

BenchRow RowOf(const SpeedFigure& figure) {
  return {figure.name,
          "tokens/s",
          figure.tokens_per_second,
          figure.limit,
          figure.bandwidth_share,
          figure.integer_share};
}

EarlierBench ReadEarlier(const std::filesystem::path& path) {
  EarlierBench earlier;
  try {
    const std::string text = ReadFile(path);
    CheckJsonLevels(text, path);
    const Json file = Json::parse(text);
    for (const char* key : {"model", "threads", "isa"}) earlier.setting[key] = file.at(key);
    for (const Json& figure : file.at("figures")) {
      earlier.medians[figure.at("name").get<std::string>()] = figure.at("median").get<double>();
    }
  } catch (const Json::exception& error) {
    Throw(ErrorCode::kCorrupt, "{}: expected what 'bakestone bench --json' prints, found {}",
          path.string(), error.what());
  }
  return earlier;
}

Json ToJson(const BenchRow& row) {
  Json json = {{"name", row.name},           {"unit", row.unit},
               {"median", row.value.median}, {"least", row.value.least},
               {"most", row.value.most},     {"repetitions", row.value.count}};
  if (row.limit > 0) {
    json["limit"] = row.limit;
    json["limit_share"] = row.value.median / row.limit;
    json["bandwidth_share"] = row.bandwidth_share;
    json["integer_share"] = row.integer_share;
  }
  return json;
}

Json ToJson(const ShapeFigure& shape) {
  return {{"sites", shape.sites},
          {"type", DTypeName(shape.type)},
          {"n", shape.n},
          {"k", shape.k},
          {"rows", shape.rows},
          {"bytes", shape.bytes},
          {"multiply_adds", shape.macs},
          {"limit_seconds", shape.limit_seconds},
          {"median_seconds", shape.seconds.median},
          {"least_seconds", shape.seconds.least},
          {"limit_share", shape.limit_seconds / shape.seconds.median}};
}

Json ToJson(const MachineLimits& limits) {
  return {{"read_bandwidth_one_thread", limits.read_bandwidth_one},
          {"read_bandwidth", limits.read_bandwidth},
          {"int8_multiply_adds_per_second", limits.peaks.int8_per_second},
          {"bf16_multiply_adds_per_second", limits.peaks.bf16_per_second},
          {"f32_multiply_adds_per_second", limits.peaks.float_per_second}};
}

void PrintHeading(bool compared) {
  fmt::print("{:<14} {:>10} {:>26} {:>10} {:>9} {:>10} {:>9}{}\n", "", "median", "spread", "limit",
             "of limit", "bandwidth", "int8 peak", compared ? "   against" : "");
}

void Print(const BenchRow& row, const EarlierBench* earlier) {
  fmt::print("{:<14} {:>10} {:>26} {:>10} {:>9} {:>10} {:>9}{}\n", row.name,
             ValueText(row.value.median, row.unit), SpreadText(row.value, row.unit),
             row.limit > 0 ? ValueText(row.limit, row.unit) : "",
             row.limit > 0 ? ShareText(row.value.median / row.limit) : "",
             ShareText(row.bandwidth_share), ShareText(row.integer_share),
             earlier != nullptr ? fmt::format(" {:>9}", RatioText(row, *earlier)) : "");
  std::fflush(stdout);
}

void Print(const std::vector<ShapeFigure>& shapes) {
  fmt::print("\n{:<12} {:<8} {:>13} {:>5} {:>10} {:>12} {:>10} {:>10} {:>8}\n", "matrix", "type",
             "outputs x in", "rows", "bytes", "mult.-adds", "limit us", "median us", "of limit");
  for (const ShapeFigure& shape : shapes) {
    fmt::print("{:<12} {:<8} {:>13} {:>5} {:>8.0f} k {:>10.2f} M {:>10.1f} {:>10.1f} {:>6.0f} %\n",
               shape.sites, DTypeName(shape.type), fmt::format("{} x {}", shape.n, shape.k),
               shape.rows, static_cast<double>(shape.bytes) * 1e-3,
               static_cast<double>(shape.macs) * 1e-6, shape.limit_seconds * 1e6,
               shape.seconds.median * 1e6, shape.limit_seconds / shape.seconds.median * 100);
  }
}

}  // namespace bakestone::cli
