// json.dumps and json.loads as templates see them, and the context's way in.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/chat/builtins.h"
#include "text/chat/context.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

void AppendJsonString(Text& out, const Text& text, bool ascii) {
  const std::string_view s = text.view();
  Text::Cursor cursor(text);
  out.Append("\"", true);
  for (std::size_t p = 0; p < s.size();) {
    const std::size_t at = p;
    const char32_t c = NextCodePoint(s, p);
    std::string piece(s.substr(at, p - at));
    const auto n = static_cast<std::uint32_t>(c);
    if (c == '"' || c == '\\') {
      piece.insert(0, "\\");
    } else if (c == '\n') {
      piece = "\\n";
    } else if (c == '\r') {
      piece = "\\r";
    } else if (c == '\t') {
      piece = "\\t";
    } else if (c == '\b') {
      piece = "\\b";
    } else if (c == '\f') {
      piece = "\\f";
    } else if (c < 0x20 || (ascii && (c == 0x7F || (c > 0x7F && c < 0x10000)))) {
      piece = c == 0x7F ? piece : fmt::format("\\u{:04x}", n);
    } else if (ascii && c >= 0x10000) {
      piece =
          fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((n - 0x10000) >> 10), 0xDC00 + (n & 0x3FF));
    }
    out.Append(piece, cursor.Trusted(at));
  }
  out.Append("\"", true);
}

std::string JsonDouble(double d) {
  return std::isnan(d) ? "NaN" : std::isinf(d) ? (d < 0 ? "-Infinity" : "Infinity") : DoubleRepr(d);
}

void NewLine(Text& out, const JsonStyle& style, int level) {
  if (!style.indent) return;
  out.Append("\n", true);
  for (int i = 0; i < level; ++i) out.Append(*style.indent);
}

void AppendJsonKey(Text& out, const Value& key, const JsonStyle& style) {
  switch (key.kind()) {
    case Value::Kind::kString:
      AppendJsonString(out, key.text(), style.ensure_ascii);
      return;
    case Value::Kind::kBool:
      out.Append(key.as_bool() ? "\"true\"" : "\"false\"", true);
      return;
    case Value::Kind::kNone:
      out.Append("\"null\"", true);
      return;
    case Value::Kind::kInt:
      out.Append("\"" + IntToString(key.as_int()) + "\"", true);
      return;
    case Value::Kind::kFloat:
      out.Append("\"" + JsonDouble(key.as_double()) + "\"", true);
      return;
    default:
      FailF("keys must be str, int, float, bool or None, not {}", key.type_name());
  }
}

void AppendJsonList(Runtime& rt, Text& out, const List& list, const JsonStyle& style, int level) {
  if (list.items.empty()) return out.Append("[]", true);
  out.Append("[", true);
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.Append(style.item_separator);
    NewLine(out, style, level + 1);
    AppendJson(rt, out, list.items[i], style, level + 1);
  }
  NewLine(out, style, level);
  out.Append("]", true);
}

void AppendJsonDict(Runtime& rt, Text& out, const Dict& dict, const JsonStyle& style, int level) {
  if (dict.size() == 0) return out.Append("{}", true);
  std::vector<Dict::Item> items = dict.items();
  if (style.sort_keys) {
    std::stable_sort(items.begin(), items.end(),
                     [](const auto& a, const auto& b) { return Less(a.first, b.first); });
  }
  out.Append("{", true);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(style.item_separator);
    NewLine(out, style, level + 1);
    AppendJsonKey(out, items[i].first, style);
    out.Append(style.key_separator);
    AppendJson(rt, out, items[i].second, style, level + 1);
  }
  NewLine(out, style, level);
  out.Append("}", true);
}

class Importer {
 public:
  explicit Importer(const RenderOptions* options) : options_(options) {}

  Value Import(const nlohmann::ordered_json& json, bool trusted, bool role, int depth) const {
    using Type = nlohmann::ordered_json::value_t;
    if (depth > 300) Fail("the context nests deeper than 300 levels");
    switch (json.type()) {
      case Type::boolean:
        return Value(json.get<bool>());
      case Type::number_integer:
        return Value(json.get<std::int64_t>());
      case Type::number_unsigned:
        return Value(static_cast<Int>(json.get<std::uint64_t>()));
      case Type::number_float:
        return Value(json.get<double>());
      case Type::string: {
        const auto& s = json.get_ref<const std::string&>();
        const bool known = role && options_ != nullptr && options_->trusted_roles.contains(s);
        return Value(Text(ToValidUtf8(s), trusted || known));
      }
      case Type::array: {
        std::vector<Value> items;
        items.reserve(json.size());
        for (const auto& item : json) items.push_back(Import(item, trusted, false, depth + 1));
        return MakeList(std::move(items));
      }
      case Type::object: {
        std::vector<Dict::Item> items;
        items.reserve(json.size());
        for (const auto& [key, item] : json.items()) {
          items.emplace_back(Value(Text(ToValidUtf8(key), trusted)),
                             Import(item, trusted, key == "role", depth + 1));
        }
        return MakeDict(std::move(items));
      }
      default:
        return Value();
    }
  }

 private:
  const RenderOptions* options_;
};

}  // namespace

void AppendJson(Runtime& rt, Text& out, const Value& value, const JsonStyle& style, int level) {
  rt.budget.Step();
  if (static_cast<std::int64_t>(out.size()) > rt.budget.limits().max_string_bytes) {
    Fail("tojson: the string is too long");
  }
  switch (value.kind()) {
    case Value::Kind::kNone:
      return out.Append("null", true);
    case Value::Kind::kBool:
      return out.Append(value.as_bool() ? "true" : "false", true);
    case Value::Kind::kInt:
      return out.Append(IntToString(value.as_int()), true);
    case Value::Kind::kFloat:
      return out.Append(JsonDouble(value.as_double()), true);
    case Value::Kind::kString:
      return AppendJsonString(out, value.text(), style.ensure_ascii);
    case Value::Kind::kList:
      return AppendJsonList(rt, out, value.list(), style, level);
    case Value::Kind::kDict:
      return AppendJsonDict(rt, out, value.dict(), style, level);
    default:
      FailF("Object of type {} is not JSON serializable", value.type_name());
  }
}

Value ImportContext(const nlohmann::ordered_json& json, bool trusted,
                    const RenderOptions& options) {
  return Importer(&options).Import(json, trusted, false, 0);
}

Value ParseJson(Runtime& runtime, const Text& text) {
  runtime.budget.Work(text.size() * 8);
  const auto json = nlohmann::ordered_json::parse(text.bytes(), nullptr, false);
  if (json.is_discarded()) Fail("from_json: the string is not valid JSON");
  // Positions are lost in parsing: a single byte of the user's makes all of it the user's.
  const bool trusted = text.runs().size() <= 1 && (text.empty() || text.TrustedAt(0));
  return Importer(nullptr).Import(json, trusted, false, 0);
}

}  // namespace bakestone::chat
