#include "data/personal_rows.h"

#include <nlohmann/json.hpp>

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

void Count(const std::vector<PersonalFinding>& findings, PersonalCounts* counts) {
  for (const PersonalFinding& finding : findings) ++(*counts)[static_cast<size_t>(finding.kind)];
}

void MaskText(std::string* text, PersonalCounts* counts) {
  const auto findings = FindPersonalData(*text);
  if (findings.empty()) return;
  Count(findings, counts);
  *text = MaskPersonalData(*text, findings);
}

// Rows are at most row.cc's kMaxDepth deep.
void MaskTexts(Json* value, PersonalCounts* counts) {
  if (value->is_string()) MaskText(value->get_ptr<std::string*>(), counts);
  if (!value->is_structured()) return;
  for (Json& element : *value) MaskTexts(&element, counts);
}

void MaskConversation(Conversation* chat, PersonalCounts* counts) {
  Json messages = *chat->messages;
  for (Json& message : messages) {
    for (const char* key : {"content", "tool_calls", "reasoning_content"}) {
      if (message.contains(key)) MaskTexts(&message[key], counts);
    }
  }
  chat->messages = std::make_shared<const Json>(std::move(messages));
}

}  // namespace

PersonalCounts CountPersonalData(const Row& row) {
  PersonalCounts counts{};
  Count(FindPersonalData(row.kind == RowKind::kText ? row.text : row.AllText()), &counts);
  return counts;
}

PersonalCounts MaskPersonalData(Row* row) {
  PersonalCounts counts{};
  if (row->kind == RowKind::kText) {
    MaskText(&row->text, &counts);
    return counts;
  }
  MaskConversation(&row->chat, &counts);
  if (row->kind == RowKind::kPreference) MaskConversation(&row->rejected, &counts);
  return counts;
}

}  // namespace bakestone
