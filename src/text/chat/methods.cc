// The methods of Python's str, dict, list, tuple and of jinja2's loop, cycler and macro.
#include <algorithm>
#include <array>

#include "text/chat/builtins.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

Value TextList(Runtime& rt, std::vector<Text> pieces) {
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (Text& piece : pieces) items.push_back(rt.MakeString(std::move(piece)));
  return rt.NewList(std::move(items));
}

// Python's optional start and end of find(), startswith() and others, as byte offsets.
struct Window {
  std::size_t begin = 0, end = 0, first = 0;  // first: the code point index of begin
  bool valid = true;
};

Window MakeWindow(Runtime& rt, const Text& text, const Params& p, std::size_t from) {
  Window w;
  w.end = text.size();
  if (!p.HasValue(from) && !p.HasValue(from + 1)) return w;
  rt.budget.Work(text.size());
  const auto n = static_cast<Int>(text.length());
  const auto clip = [&](Int i) { return std::max<Int>(i < 0 ? i + n : i, 0); };
  const Int start = clip(p.HasValue(from) ? p.Integer(from, 0) : Int{0});
  const Int stop = std::min(clip(p.HasValue(from + 1) ? p.Integer(from + 1, n) : n), n);
  w.valid = start <= stop;
  if (!w.valid) return w;
  w.first = static_cast<std::size_t>(start);
  w.begin = ByteOffset(text.view(), w.first);
  w.end = ByteOffset(text.view(), static_cast<std::size_t>(stop));
  return w;
}

Value Affix(Runtime& rt, const Text& text, const CallArgs& args, bool prefix) {
  const Params p(prefix ? "startswith" : "endswith", args, {"", "", ""}, 1);
  const Window w = MakeWindow(rt, text, p, 1);
  const std::string_view s = text.view().substr(w.begin, w.valid ? w.end - w.begin : 0);
  const auto matches = [&](const Value& v) {
    if (!v.is_string()) {
      FailF("{} first arg must be str or a tuple of str, not {}",
            prefix ? "startswith" : "endswith", v.type_name());
    }
    return w.valid && (prefix ? s.starts_with(v.str()) : s.ends_with(v.str()));
  };
  if (!p[0].is_tuple()) return Value(matches(p[0]));
  const auto& options = p[0].list().items;
  return Value(std::any_of(options.begin(), options.end(), matches));
}

Value Find(Runtime& rt, const Text& text, const CallArgs& args, bool from_right, bool must) {
  const Params p(must ? "index" : "find", args, {"", "", ""}, 1);
  const Window w = MakeWindow(rt, text, p, 1);
  rt.budget.Work(text.size());
  const std::string_view s = text.view().substr(0, w.end);
  const std::string& what = p.String(0).bytes();
  std::size_t at = !w.valid     ? std::string_view::npos
                   : from_right ? s.rfind(what)
                                : s.find(what, w.begin);
  if (at != std::string_view::npos && at < w.begin) at = std::string_view::npos;
  if (at == std::string_view::npos) {
    if (must) Fail("substring not found");
    return Value(-1);
  }
  return Value(w.first + CountCodePoints(s.substr(w.begin, at - w.begin)));
}

Value CountOf(Runtime& rt, const Text& text, const CallArgs& args) {
  const Params p("count", args, {"", "", ""}, 1);
  const Window w = MakeWindow(rt, text, p, 1);
  rt.budget.Work(text.size());
  if (!w.valid) return Value(0);
  const std::string_view s = text.view().substr(w.begin, w.end - w.begin);
  const std::string& what = p.String(0).bytes();
  if (what.empty()) return Value(CountCodePoints(s) + 1);
  int count = 0;
  for (std::size_t at = s.find(what); at != std::string_view::npos;
       at = s.find(what, at + what.size())) {
    ++count;
  }
  return Value(count);
}

Value Pad(Runtime& rt, const Text& text, const CallArgs& args, std::string_view name) {
  const Params p(name, args, {"", ""}, 1);
  const Text fill = p.Has(1) ? p.String(1) : Text::Trusted(name == "zfill" ? "0" : " ");
  if (fill.length() != 1) Fail("The fill character must be exactly one character long");
  const auto length = static_cast<Int>(text.length());
  const Int width = p.Integer(0, 0);
  if (width <= length) return rt.MakeString(text);
  const Int pad = width - length;
  if (pad > rt.budget.limits().max_string_bytes / 4) {
    FailF("a string would pass {} bytes", rt.budget.limits().max_string_bytes);
  }
  Int left = 0;
  if (name == "center") left = pad / 2 + (pad & width & 1);
  if (name == "rjust" || name == "zfill") left = pad;
  Text out;
  std::size_t sign = 0;
  if (name == "zfill" && !text.empty() && (text.bytes()[0] == '-' || text.bytes()[0] == '+')) {
    sign = 1;
  }
  out.Append(text, 0, sign);
  for (Int i = 0; i < left; ++i) out.Append(fill);
  out.Append(text, sign, text.size());
  for (Int i = left; i < pad; ++i) out.Append(fill);
  return rt.MakeString(std::move(out));
}

Value Partition(Runtime& rt, const Text& text, const CallArgs& args, bool from_right) {
  const Params p("partition", args, {""}, 1);
  const Text& sep = p.String(0);
  if (sep.empty()) Fail("empty separator");
  const std::size_t at = from_right ? text.view().rfind(sep.view()) : text.view().find(sep.view());
  const Value none = rt.MakeString(Text());
  if (at == std::string_view::npos) {
    const Value all = rt.MakeString(text);
    return from_right ? MakeTuple({none, none, all}) : MakeTuple({all, none, none});
  }
  return MakeTuple({rt.MakeString(text.Slice(0, at)), rt.MakeString(sep),
                    rt.MakeString(text.Slice(at + sep.size(), text.size()))});
}

Value JoinWith(Runtime& rt, const Text& separator, const CallArgs& args) {
  const Params p("join", args, {""}, 1);
  if (!Iterable(p[0])) Fail("can only join an iterable");
  Text out;
  out.set_markup(separator.markup());
  bool first = true;
  for (const Value& item : rt.Iterate(p[0])) {
    if (!item.is_string()) {
      FailF("sequence item: expected str instance, {} found", item.type_name());
    }
    if (!first) out.Append(separator);
    out.Append(separator.markup() ? EscapeHtml(item.text()) : item.text());
    first = false;
    if (static_cast<std::int64_t>(out.size()) > rt.budget.limits().max_string_bytes) {
      FailF("a string would pass {} bytes", rt.budget.limits().max_string_bytes);
    }
  }
  return rt.MakeString(std::move(out));
}

bool IsTitled(std::string_view s) {
  bool cased = false;
  bool previous = false;
  for (std::size_t i = 0; i < s.size();) {
    const char32_t c = NextCodePoint(s, i);
    if (IsUpper(c) || IsTitle(c)) {
      if (previous) return false;
      previous = cased = true;
    } else if (IsLower(c)) {
      if (!previous) return false;
      cased = true;
    } else {
      previous = false;
    }
  }
  return cased;
}

bool AllCased(std::string_view s, bool (*wanted)(char32_t)) {
  bool any = false;
  for (std::size_t p = 0; p < s.size();) {
    const char32_t c = NextCodePoint(s, p);
    if (wanted(c)) {
      any = true;
    } else if (IsCased(c)) {
      return false;
    }
  }
  return any;
}

bool AllOf(std::string_view s, bool empty, bool (*wanted)(char32_t)) {
  if (s.empty()) return empty;
  for (std::size_t p = 0; p < s.size();) {
    if (!wanted(NextCodePoint(s, p))) return false;
  }
  return true;
}

bool IsIdentifier(std::string_view s) {
  std::size_t p = 0;
  if (s.empty()) return false;
  const char32_t first = NextCodePoint(s, p);
  return (first == '_' || IsAlpha(first)) && AllOf(s.substr(p), true, IsWord);
}

std::optional<bool> Predicate(std::string_view name, const Text& text) {
  const std::string_view s = text.view();
  if (name == "isalnum") {
    return AllOf(s, false, [](char32_t c) { return IsAlpha(c) || IsNumeric(c); });
  }
  if (name == "isalpha") return AllOf(s, false, IsAlpha);
  if (name == "isascii") return AllOf(s, true, [](char32_t c) { return c < 0x80; });
  if (name == "isdecimal") return AllOf(s, false, IsDecimal);
  if (name == "isdigit") return AllOf(s, false, IsDigit);
  if (name == "isidentifier") return IsIdentifier(s);
  if (name == "islower") return AllCased(s, IsLower);
  if (name == "isnumeric") return AllOf(s, false, IsNumeric);
  if (name == "isprintable") return AllOf(s, true, IsPrintable);
  if (name == "isspace") return AllOf(s, false, IsSpace);
  if (name == "istitle") return IsTitled(s);
  if (name == "isupper") return AllCased(s, IsUpper);
  return std::nullopt;
}

std::optional<CaseMap> CaseMethod(std::string_view name) {
  if (name == "upper") return CaseMap::kUpper;
  if (name == "lower") return CaseMap::kLower;
  if (name == "title") return CaseMap::kTitle;
  if (name == "capitalize") return CaseMap::kCapitalize;
  if (name == "swapcase") return CaseMap::kSwap;
  if (name == "casefold") return CaseMap::kFold;
  return std::nullopt;
}

Value ExpandTabs(Runtime& rt, const Text& text, const CallArgs& args) {
  const Params p("expandtabs", args, {"tabsize"});
  const Int size = p.Integer(0, 8);
  if (size > 1000) Fail("expandtabs: expected at most 1000 columns");
  Text out;
  Text::Cursor cursor(text);
  Int column = 0;
  const std::string_view s = text.view();
  for (std::size_t i = 0; i < s.size();) {
    const std::size_t at = i;
    const char32_t c = NextCodePoint(s, i);
    if (c == '\t') {
      const Int spaces = size > 0 ? size - column % size : Int{0};
      out.Append(std::string(static_cast<std::size_t>(spaces), ' '), cursor.Trusted(at));
      column += spaces;
    } else {
      out.Append(s.substr(at, i - at), cursor.Trusted(at));
      column = c == '\n' || c == '\r' ? Int{0} : column + 1;
    }
    if (at % 4096 == 0) rt.budget.Work(out.size());
  }
  return rt.MakeString(std::move(out));
}

Value Removed(Runtime& rt, const Text& text, const CallArgs& args, bool prefix) {
  const Params p(prefix ? "removeprefix" : "removesuffix", args, {""}, 1);
  const Text& affix = p.String(0);
  if (prefix && text.view().starts_with(affix.view())) {
    return rt.MakeString(text.Slice(affix.size(), text.size()));
  }
  if (!prefix && text.view().ends_with(affix.view())) {
    return rt.MakeString(text.Slice(0, text.size() - affix.size()));
  }
  return rt.MakeString(text);
}

Value CallString(Runtime& rt, const Value& self, std::string_view name, const CallArgs& args) {
  const Text& text = self.text();
  rt.budget.Work(text.size());
  if (const auto yes = Predicate(name, text)) return Params(name, args, {}), Value(*yes);
  if (const auto map = CaseMethod(name)) {
    return Params(name, args, {}), rt.MakeString(MapCase(text, *map));
  }
  if (name == "split" || name == "rsplit") {
    const Params p(name, args, {"sep", "maxsplit"});
    return TextList(
        rt, SplitText(text, p.Has(0) ? &p[0] : nullptr, p.Integer(1, -1), name == "rsplit"));
  }
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Params p(name, args, {""});
    return rt.MakeString(
        StripText(text, p.Has(0) ? &p[0] : nullptr, name != "rstrip", name != "lstrip"));
  }
  if (name == "replace") {
    const Params p(name, args, {"", "", "count"}, 2);
    const Text to = text.markup() ? EscapeHtml(p.String(1)) : p.String(1);
    return rt.MakeString(ReplaceText(rt, text, p.String(0), to, p.Integer(2, -1)));
  }
  if (name == "startswith" || name == "endswith") {
    return Affix(rt, text, args, name == "startswith");
  }
  if (name == "find" || name == "rfind") return Find(rt, text, args, name == "rfind", false);
  if (name == "index" || name == "rindex") return Find(rt, text, args, name == "rindex", true);
  if (name == "join") return JoinWith(rt, text, args);
  if (name == "count") return CountOf(rt, text, args);
  if (name == "format") return rt.MakeString(BraceFormat(rt, text, args));
  if (name == "center" || name == "ljust" || name == "rjust" || name == "zfill") {
    return Pad(rt, text, args, name);
  }
  if (name == "partition" || name == "rpartition") {
    return Partition(rt, text, args, name == "rpartition");
  }
  if (name == "expandtabs") return ExpandTabs(rt, text, args);
  if (name == "removeprefix" || name == "removesuffix") {
    return Removed(rt, text, args, name == "removeprefix");
  }
  const Params p(name, args, {"keepends"});  // splitlines
  return TextList(rt, SplitLines(text, p.Flag(0, false)));
}

Value CallDict(Runtime& rt, const Value& self, std::string_view name, const CallArgs& args) {
  if (name == "get") {
    const Params p(name, args, {"", ""}, 1);
    if (!Hashable(p[0])) FailF("unhashable type: '{}'", p[0].type_name());
    const Value* found = self.dict().Find(p[0]);
    return found != nullptr ? *found : p.Get(1, Value());
  }
  Params(name, args, {});
  if (name == "copy") return self;
  auto view = std::make_shared<DictView>();
  view->depth = DepthAbove({&self, 1});
  view->dict = self.dict_ref();
  view->part = name == "keys"     ? DictView::Part::kKeys
               : name == "values" ? DictView::Part::kValues
                                  : DictView::Part::kItems;
  rt.budget.Step();
  return Value(std::move(view));
}

Value CallList(Runtime& rt, const Value& self, std::string_view name, const CallArgs& args) {
  const auto& items = self.list().items;
  if (name == "copy") return Params(name, args, {}), self;
  const Params p(name, args, {"", "", ""}, 1);
  rt.budget.Step(static_cast<std::int64_t>(items.size()));
  if (name == "count") {
    return Value(
        std::count_if(items.begin(), items.end(), [&](const Value& v) { return Equal(v, p[0]); }));
  }
  const auto size = static_cast<Int>(items.size());
  const auto clip = [&](Int i) { return std::clamp<Int>(i < 0 ? i + size : i, 0, size); };
  const Int stop = clip(p.Integer(2, size));
  for (Int i = clip(p.Integer(1, 0)); i < stop; ++i) {
    if (Equal(items[static_cast<std::size_t>(i)], p[0])) return Value(i);
  }
  FailF("value is not in {}", self.type_name());
}

Value CallLoop(Runtime& rt, Loop& loop, std::string_view name, const CallArgs& args) {
  rt.budget.Step();
  if (name == "cycle") {
    if (args.positional.empty()) Fail("no items for cycling given");
    return args.positional[loop.index0 % args.positional.size()];
  }
  const bool same =
      loop.last_changed && loop.last_changed->size() == args.positional.size() &&
      std::equal(args.positional.begin(), args.positional.end(), loop.last_changed->begin(), Equal);
  if (!same) loop.last_changed = args.positional;
  return Value(!same);
}

Value CallCycler(Cycler& cycler, std::string_view name, const CallArgs& args) {
  Params(name, args, {});
  if (name == "reset") {
    cycler.pos = 0;
    return Value();
  }
  Value out = cycler.items[cycler.pos];
  cycler.pos = (cycler.pos + 1) % cycler.items.size();
  return out;
}

constexpr std::string_view kStringMethods[] = {
    "capitalize", "casefold",   "center",       "count",        "endswith",  "expandtabs",
    "find",       "format",     "index",        "isalnum",      "isalpha",   "isascii",
    "isdecimal",  "isdigit",    "isidentifier", "islower",      "isnumeric", "isprintable",
    "isspace",    "istitle",    "isupper",      "join",         "ljust",     "lower",
    "lstrip",     "partition",  "removeprefix", "removesuffix", "replace",   "rfind",
    "rindex",     "rjust",      "rpartition",   "rsplit",       "rstrip",    "split",
    "splitlines", "startswith", "strip",        "swapcase",     "title",     "upper",
    "zfill"};
constexpr std::string_view kDictMethods[] = {"copy", "get", "items", "keys", "values"};
constexpr std::string_view kListMethods[] = {"copy", "count", "index"};
constexpr std::string_view kTupleMethods[] = {"count", "index"};
constexpr std::string_view kLoopMethods[] = {"changed", "cycle"};
constexpr std::string_view kCyclerMethods[] = {"next", "reset"};
constexpr std::string_view kMutatingDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kMutatingList[] = {"append", "clear",  "extend",  "insert",
                                              "pop",    "remove", "reverse", "sort"};

bool Listed(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return Listed(kStringMethods, name);
  if (self.is_dict()) return Listed(kDictMethods, name);
  if (self.is_list()) {
    return self.is_tuple() ? Listed(kTupleMethods, name) : Listed(kListMethods, name);
  }
  if (self.As<Loop>() != nullptr) return Listed(kLoopMethods, name);
  return self.As<Cycler>() != nullptr && Listed(kCyclerMethods, name);
}

bool IsMutatingMethod(const Value& self, std::string_view name) {
  if (self.is_dict()) return Listed(kMutatingDict, name);
  return self.is_list() && !self.is_tuple() && Listed(kMutatingList, name);
}

bool IsKnownMethod(std::string_view name) {
  return Listed(kStringMethods, name) || Listed(kDictMethods, name) || Listed(kListMethods, name) ||
         Listed(kLoopMethods, name) || Listed(kCyclerMethods, name) ||
         Listed(kMutatingDict, name) || Listed(kMutatingList, name);
}

Value CallMethod(Runtime& rt, const Value& self, std::string_view name, const CallArgs& args) {
  if (self.is_string()) return CallString(rt, self, name, args);
  if (self.is_dict()) return CallDict(rt, self, name, args);
  if (self.is_list()) return CallList(rt, self, name, args);
  if (auto* loop = self.As<Loop>()) return CallLoop(rt, *loop, name, args);
  return CallCycler(*self.As<Cycler>(), name, args);
}

std::optional<Value> LoopAttribute(const Loop& loop, std::string_view name) {
  const std::size_t n = loop.items.size();
  const std::size_t i = loop.index0;
  if (name == "index") return Value(i + 1);
  if (name == "index0") return Value(i);
  if (name == "revindex") return Value(n - i);
  if (name == "revindex0") return Value(n - i - 1);
  if (name == "first") return Value(i == 0);
  if (name == "last") return Value(i + 1 == n);
  if (name == "length") return Value(n);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") {
    return i > 0 ? loop.items[i - 1] : Value::MakeUndefined("there is no previous item");
  }
  if (name == "nextitem") {
    return i + 1 < n ? loop.items[i + 1] : Value::MakeUndefined("there is no next item");
  }
  return std::nullopt;
}

}  // namespace bakestone::chat
