// Filters that make strings.
#include <fmt/format.h>

#include <algorithm>

#include "text/chat/filters.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

// jinja2's soft_str: a string stays what it is (Markup too), anything else becomes one.
Value SoftStr(Runtime& rt, const Value& value) {
  return value.is_string() ? value : rt.MakeString(rt.ToText(value));
}

template <CaseMap kMap>
Value Case(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("case", args, {});
  return rt.MakeString(MapCase(SoftStr(rt, self).text(), kMap));
}

Value Title(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("title", args, {});
  const Value source = SoftStr(rt, self);
  const Text& text = source.text();
  Text out;
  bool start = true;
  for (std::size_t p = 0; p < text.size();) {
    const std::size_t at = p;
    const char32_t c = NextCodePoint(text.view(), p);
    const bool breaks = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c);
    out.Append(MapCase(text.Slice(at, p), start ? CaseMap::kUpper : CaseMap::kLower));
    start = breaks;
  }
  return rt.MakeString(std::move(out));
}

Value Trim(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("trim", args, {"chars"});
  return rt.MakeString(StripText(SoftStr(rt, self).text(), p.Has(0) ? &p[0] : nullptr, true, true));
}

Value Replace(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("replace", args, {"old", "new", "count"}, 2);
  const Int count = p.HasValue(2) ? p.Integer(2, -1) : Int{-1};
  Text source = rt.ToText(self);
  source.set_markup(false);
  return rt.MakeString(ReplaceText(rt, source, rt.ToText(p[0]), rt.ToText(p[1]), count));
}

Value String(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("string", args, {});
  return SoftStr(rt, self);
}

Value Safe(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("safe", args, {});
  Text text = rt.ToText(self);
  text.set_markup(true);
  return rt.MakeString(std::move(text));
}

Value Escape(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("escape", args, {});
  return rt.MakeString(EscapeHtml(rt.ToText(self)));
}

Value ForceEscape(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("forceescape", args, {});
  Text text = rt.ToText(self);
  text.set_markup(false);
  return rt.MakeString(EscapeHtml(text));
}

Value Join(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("join", args, {"d", "attribute"});
  const Text separator = p.Has(0) ? rt.ToText(p[0]) : Text();
  Text out;
  bool first = true;
  for (const Value& item : rt.Iterate(self)) {
    if (!first) out.Append(separator);
    out.Append(rt.ToText(p.HasValue(1) ? AttributePath(rt, item, p[1]) : item));
    first = false;
    if (static_cast<std::int64_t>(out.size()) > rt.budget.limits().max_string_bytes) {
      FailF("a string would pass {} bytes", rt.budget.limits().max_string_bytes);
    }
  }
  return rt.MakeString(std::move(out));
}

Value Indent(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("indent", args, {"width", "first", "blank"});
  if (!self.is_string()) FailF("indent: expected a string, found {}", self.type_name());
  Text pad;
  if (p.Has(0) && p[0].is_string()) {
    pad = p[0].text();
  } else {
    const Int width = p.Integer(0, 4);
    if (width > 10'000) Fail("indent: expected a width of at most 10,000");
    pad = Text::Trusted(std::string(static_cast<std::size_t>(std::max<Int>(width, 0)), ' '));
  }
  Text source = self.text();
  source.Append("\n", true);
  const std::vector<Text> lines = SplitLines(source, false);
  Text out;
  out.set_markup(source.markup());
  if (p.Flag(1, false)) out.Append(pad);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n", true);
    if (i > 0 && (p.Flag(2, false) || !lines[i].empty())) out.Append(pad);
    out.Append(lines[i]);
    rt.budget.Step();
    if (static_cast<std::int64_t>(out.size()) > rt.budget.limits().max_string_bytes) {
      Fail("indent: the string is too long");
    }
  }
  return rt.MakeString(std::move(out));
}

Value Truncate(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("truncate", args, {"length", "killwords", "end", "leeway"});
  if (!self.is_string()) FailF("truncate: expected a string, found {}", self.type_name());
  const Text& text = self.text();
  const Text end = p.Has(2) ? p.String(2) : Text::Trusted("...");
  const Int length = p.Integer(0, 255);
  const Int leeway = p.HasValue(3) ? p.Integer(3, 5) : Int{5};
  const auto tail = static_cast<Int>(end.length());
  if (length < tail) FailF("expected length >= {}, got {}", IntToString(tail), IntToString(length));
  if (leeway < 0) FailF("expected leeway >= 0, got {}", IntToString(leeway));
  if (static_cast<Int>(text.length()) <= length + leeway) return self;
  Text out = text.Slice(0, ByteOffset(text.view(), static_cast<std::size_t>(length - tail)));
  if (!p.Flag(1, false)) {
    const std::size_t space = out.view().rfind(' ');
    if (space != std::string_view::npos) out = out.Slice(0, space);
  }
  out.Append(end);
  return rt.MakeString(std::move(out));
}

Value Center(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("center", args, {"width"});
  return CallMethod(rt, SoftStr(rt, self), "center", {{Value(p.Integer(0, 80))}, {}});
}

Value Format(Runtime& rt, const Value& self, const CallArgs& args) {
  const Value format = SoftStr(rt, self);
  if (!args.positional.empty() && !args.keyword.empty()) {
    Fail("format: can't handle positional and keyword arguments at the same time");
  }
  if (args.keyword.empty()) {
    return rt.MakeString(PercentFormat(rt, format.text(), rt.NewList(args.positional, true)));
  }
  std::vector<Dict::Item> items;
  for (const auto& [key, value] : args.keyword) items.emplace_back(rt.MakeString(key), value);
  return rt.MakeString(PercentFormat(rt, format.text(), rt.NewDict(std::move(items))));
}

Value ToJson(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = p.Flag(0, false);
  style.sort_keys = p.Flag(3, false);
  if (p.HasValue(1)) {
    if (p[1].is_string()) {
      style.indent = p[1].text();
    } else {
      const Int width = std::max<Int>(p.Integer(1, 0), 0);
      if (width > 100) Fail("tojson: expected an indent of at most 100");
      style.indent = Text::Trusted(std::string(static_cast<std::size_t>(width), ' '));
    }
  }
  style.item_separator = Text::Trusted(style.indent ? "," : ", ");
  style.key_separator = Text::Trusted(": ");
  if (p.HasValue(2)) {
    const std::vector<Value> two = rt.Iterate(p[2]);
    if (two.size() != 2 || !two[0].is_string() || !two[1].is_string()) {
      Fail("tojson: separators must be two strings");
    }
    style.item_separator = two[0].text();
    style.key_separator = two[1].text();
  }
  Text out;
  AppendJson(rt, out, self, style, 0);
  return rt.MakeString(std::move(out));
}

Value UrlEncodeOne(Runtime& rt, const Text& text, bool query) {
  Text out;
  Text::Cursor cursor(text);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text.bytes()[i]);
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (!query && c == '/');
    const std::string piece = plain               ? std::string(1, static_cast<char>(c))
                              : query && c == ' ' ? "+"
                                                  : fmt::format("%{:02X}", c);
    out.Append(piece, cursor.Trusted(i));
  }
  return rt.MakeString(std::move(out));
}

Value UrlEncode(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("urlencode", args, {});
  if (self.is_string() || !Iterable(self)) return UrlEncodeOne(rt, rt.ToText(self), false);
  std::vector<Dict::Item> pairs;
  if (self.is_dict()) {
    pairs = self.dict().items();
  } else {
    for (const Value& pair : rt.Iterate(self)) {
      const std::vector<Value> two = rt.Iterate(pair);
      if (two.size() != 2) Fail("urlencode: expected pairs of key and value");
      pairs.emplace_back(two[0], two[1]);
    }
  }
  Text out;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (i > 0) out.Append("&", true);
    out.Append(UrlEncodeOne(rt, rt.ToText(pairs[i].first), true).text());
    out.Append("=", true);
    out.Append(UrlEncodeOne(rt, rt.ToText(pairs[i].second), true).text());
  }
  return rt.MakeString(std::move(out));
}

constexpr NamedBuiltin kStringFilters[] = {
    {"capitalize", Case<CaseMap::kCapitalize>},
    {"center", Center},
    {"e", Escape},
    {"escape", Escape},
    {"forceescape", ForceEscape},
    {"format", Format},
    {"indent", Indent},
    {"join", Join},
    {"lower", Case<CaseMap::kLower>},
    {"replace", Replace},
    {"safe", Safe},
    {"string", String},
    {"title", Title},
    {"tojson", ToJson},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", Case<CaseMap::kUpper>},
    {"urlencode", UrlEncode},
};

}  // namespace

std::span<const NamedBuiltin> StringFilters() { return kStringFilters; }

const NamedBuiltin* FindFilter(std::string_view name) {
  for (const auto table : {StringFilters(), SequenceFilters(), ScalarFilters()}) {
    const auto it = std::find_if(table.begin(), table.end(),
                                 [&](const NamedBuiltin& b) { return b.name == name; });
    if (it != table.end()) return &*it;
  }
  return nullptr;
}

}  // namespace bakestone::chat
