// Line plots as SVG files that any browser shows. Pure functions.
#pragma once

#include <string>
#include <vector>

namespace bakestone {

struct PlotSeries {
  std::string name;
  std::vector<double> x, y;  // of one length; values that are no finite numbers are left out
};

struct PlotPanel {
  std::string title;  // "loss, nats a token"
  std::vector<PlotSeries> series;
  bool from_zero = false;  // the scale begins at 0
};

// Panels below one another, with one x axis: "steps".
std::string SvgPlot(const std::string& title, const std::vector<PlotPanel>& panels);

}  // namespace bakestone
