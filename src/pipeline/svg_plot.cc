#include "pipeline/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/core.h>

namespace bakestone {
namespace {

constexpr double kWidth = 720, kPanel = 170, kLeft = 70, kRight = 20, kTop = 34, kGap = 46;
constexpr const char* kColours[] = {"#1b6ca8", "#c8553d", "#3a7d44", "#7d5ba6"};

struct Extent {
  double least = std::numeric_limits<double>::infinity(), most = -least;
  void Take(double value) {
    if (!std::isfinite(value)) return;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  // A little room, and never nothing.
  void Widen() {
    if (!(least <= most)) least = 0, most = 1;
    const double room = most > least ? 0.05 * (most - least) : std::max(1e-9, 0.1 * std::abs(most));
    least -= room;
    most += room;
  }
};

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string Text(double x, double y, const char* anchor, const std::string& text,
                 const char* colour = "#444") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\">{}</text>\n",
                     x, y, anchor, colour, Escaped(text));
}

// 1, 2 or 5 times a power of ten, so that the range has three to seven of them.
double TickOf(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 3)));
  for (const double step : {5.0, 2.0}) {
    if (range / (step * power) >= 3) return step * power;
  }
  return power;
}

std::string DrawPanel(const PlotPanel& panel, Extent x, double top) {
  Extent y;
  for (const PlotSeries& series : panel.series) {
    for (const double value : series.y) y.Take(value);
  }
  if (panel.from_zero) y.Take(0);
  y.Widen();
  if (panel.from_zero) y.least = std::max(y.least, 0.0);
  const auto to_x = [&](double value) {
    return kLeft + (value - x.least) / (x.most - x.least) * (kWidth - kLeft - kRight);
  };
  const auto to_y = [&](double value) {
    return top + (y.most - value) / (y.most - y.least) * kPanel;
  };
  std::string svg = Text(kLeft, top - 8, "start", panel.title, "#111");
  const double tick = TickOf(y.most - y.least);
  for (double at = std::ceil(y.least / tick) * tick; at <= y.most; at += tick) {
    const double value = std::abs(at) < tick * 1e-6 ? 0 : at;
    svg += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n",
                       kLeft, kWidth - kRight, to_y(value), to_y(value));
    svg += Text(kLeft - 8, to_y(value) + 4, "end", fmt::format("{:g}", value));
  }
  double legend = kWidth - kRight;
  for (size_t i = 0; i < panel.series.size(); ++i) {
    const PlotSeries& series = panel.series[i];
    const char* colour = kColours[i % std::size(kColours)];
    std::string points;
    for (size_t p = 0; p < series.x.size(); ++p) {
      if (std::isfinite(series.y[p])) {
        points += fmt::format("{:.1f},{:.1f} ", to_x(series.x[p]), to_y(series.y[p]));
      }
    }
    svg +=
        fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n",
                    points, colour);
    if (panel.series.size() < 2) continue;
    svg += Text(legend, top - 8, "end", series.name, colour);
    legend -= 9.0 * static_cast<double>(series.name.size()) + 12;
  }
  return svg;
}

}  // namespace

std::string SvgPlot(const std::string& title, const std::vector<PlotPanel>& panels) {
  Extent x;
  for (const PlotPanel& panel : panels) {
    for (const PlotSeries& series : panel.series) {
      for (const double value : series.x) x.Take(value);
    }
  }
  if (!(x.least < x.most)) x.most = (x.least = std::isfinite(x.least) ? x.least : 0) + 1;
  const double height = kTop + static_cast<double>(panels.size()) * (kPanel + kGap) + 10;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" "
      "fill=\"white\"/>\n",
      kWidth, height);
  svg += Text(kLeft, 18, "start", title, "#111");
  double top = kTop + 22;
  for (const PlotPanel& panel : panels) {
    svg += DrawPanel(panel, x, top);
    top += kPanel + kGap;
  }
  svg += Text(kLeft, top - kGap + 18, "start", fmt::format("step {:g}", x.least));
  svg += Text(kWidth - kRight, top - kGap + 18, "end", fmt::format("step {:g}", x.most));
  return svg + "</svg>\n";
}

}  // namespace bakestone
