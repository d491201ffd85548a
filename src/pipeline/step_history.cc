#include "pipeline/step_history.h"

#include <algorithm>
#include <fstream>
#include <string_view>

#include <nlohmann/json.hpp>

#include "pipeline/svg_plot.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

// The watched texts of a line, in its order.
void AddTexts(const Json& json, std::vector<TextHistory>* texts) {
  constexpr std::string_view kBits = "bits_per_byte/", kBase = "base_bits_per_byte/",
                             kKl = "kl_to_base/";
  const auto text = [&](const std::string& name) -> TextHistory& {
    const auto found = std::find_if(texts->begin(), texts->end(),
                                    [&](const TextHistory& known) { return known.name == name; });
    if (found != texts->end()) return *found;
    texts->push_back({.name = name});
    return texts->back();
  };
  for (const auto& [key, value] : json.items()) {
    if (!value.is_number()) continue;
    if (key.starts_with(kBase)) {
      text(key.substr(kBase.size())).base = value.get<double>();
    } else if (key.starts_with(kBits)) {
      TextHistory& history = text(key.substr(kBits.size()));
      history.step.push_back(json.value("step", 0.0));
      history.bits_per_byte.push_back(value.get<double>());
    } else if (key.starts_with(kKl)) {
      text(key.substr(kKl.size())).kl.push_back(value.get<double>());
    }
  }
}

void AddTextPanels(const std::vector<TextHistory>& texts, std::vector<PlotPanel>* panels) {
  PlotPanel domain{"domain texts, bits a byte", {}}, general{"general texts, bits a byte", {}};
  PlotPanel kl{"general texts: KL to the base, nats a token", {}, true};
  for (const TextHistory& text : texts) {
    (text.general() ? general : domain)
        .series.push_back({text.name, text.step, text.bits_per_byte});
    if (text.general() && text.kl.size() == text.step.size()) {
      kl.series.push_back({text.name, text.step, text.kl});
    }
  }
  for (PlotPanel* panel : {&domain, &general, &kl}) {
    if (!panel->series.empty()) panels->push_back(std::move(*panel));
  }
}

}  // namespace

Json ToJson(const std::vector<TextHistory>& texts) {
  Json json = Json::array();
  for (const TextHistory& text : texts) {
    Json entry = {{"name", text.name},
                  {"general", text.general()},
                  {"base_bits_per_byte", text.base},
                  {"step", text.step},
                  {"bits_per_byte", text.bits_per_byte}};
    if (text.general()) entry["kl_to_base"] = text.kl;
    json.push_back(std::move(entry));
  }
  return json;
}

StepHistory ReadStepHistory(const std::filesystem::path& log) {
  StepHistory history;
  std::ifstream file(log);
  double tokens = 0, seconds = 0;
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    const auto number = [&](const char* key) {
      return json.contains(key) && json[key].is_number() ? json[key].get<double>() : 0.0;
    };
    AddTexts(json, &history.texts);
    if (!json.contains("loss")) continue;  // before the first step
    history.step.push_back(number("step"));
    history.loss.push_back(number("loss"));
    history.replay_loss.push_back(number("replay_loss"));
    history.learning_rate.push_back(number("learning_rate"));
    history.gradient_norm.push_back(number("gradient_norm"));
    const double spent = number("seconds") - seconds;
    history.tokens_per_second.push_back(spent > 0 ? (number("tokens") - tokens) / spent : 0);
    tokens = number("tokens");
    seconds = number("seconds");
    if (!json.contains("heldout_loss")) continue;
    history.heldout_step.push_back(history.step.back());
    history.heldout_loss.push_back(number("heldout_loss"));
  }
  return history;
}

std::string PlotOf(const std::string& stage, const StepHistory& history) {
  PlotPanel loss{"loss", {{"training", history.step, history.loss}}};
  if (!history.heldout_loss.empty()) {
    loss.series.push_back({"held out", history.heldout_step, history.heldout_loss});
  }
  std::vector<PlotPanel> panels = {loss};
  for (const double value : history.replay_loss) {
    if (value == 0) continue;
    panels.push_back(
        {"replay: loss, or KL to the base", {{"", history.step, history.replay_loss}}, true});
    break;
  }
  AddTextPanels(history.texts, &panels);
  panels.push_back({"learning rate", {{"", history.step, history.learning_rate}}, true});
  panels.push_back({"gradient norm", {{"", history.step, history.gradient_norm}}, true});
  panels.push_back({"tokens a second", {{"", history.step, history.tokens_per_second}}, true});
  return SvgPlot("stage " + stage, panels);
}

}  // namespace bakestone
