#include "format/adapter_card.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace bakestone {

std::string AdapterCard(const AdapterFile& adapter) {
  std::string card = "---\nlibrary_name: peft\n";
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  if (!adapter.base_name.empty()) card += "base_model: " + quoted(adapter.base_name) + "\n";
  if (!adapter.licence.empty()) {
    std::string id = adapter.licence;  // the hub's are in lower case
    std::transform(id.begin(), id.end(), id.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    card += "license: " + quoted(id) + "\n";
  }
  card += "---\n\n# " + (adapter.name.empty() ? std::string("Adapter") : adapter.name) + "\n";
  if (!adapter.base_name.empty()) {
    card += fmt::format("\nAn adapter of {}, rank {}.\n", adapter.base_name, adapter.rank);
  }
  return card;
}

}  // namespace bakestone
