// Global functions: range, namespace, dict, cycler, joiner, raise_exception, strftime_now.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/chat/builtins.h"

namespace bakestone::chat {
namespace {

constexpr std::size_t kMaxRange = 100'000;  // jinja2's sandbox has the same

Value MakeRange(Runtime&, const Value&, const CallArgs& args) {
  const Params p("range", args, {"", "", ""}, 1);
  auto range = std::make_shared<Range>();
  range->stop = p.Integer(0, 0);
  if (p.Has(1)) {
    range->start = range->stop;
    range->stop = p.Integer(1, 0);
  }
  range->step = p.Integer(2, 1);
  if (range->step == 0) Fail("range() arg 3 must not be zero");
  constexpr Int kFar = Int{1} << 100;
  if (std::max({range->start, range->stop, range->step}) > kFar ||
      std::min({range->start, range->stop, range->step}) < -kFar || range->size() > kMaxRange) {
    FailF("Range too big. The sandbox blocks ranges larger than {} items", kMaxRange);
  }
  return Value(std::move(range));
}

// dict(mapping_or_pairs, **more), shared by dict() and namespace().
std::vector<Dict::Item> DictItems(Runtime& rt, std::string_view name, const CallArgs& args) {
  if (args.positional.size() > 1) {
    FailF("{} expected at most 1 argument, got {}", name, args.positional.size());
  }
  std::vector<Dict::Item> items;
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_dict()) {
      items = from.dict().items();
    } else {
      for (const Value& pair : rt.Iterate(from)) {
        std::vector<Value> two = rt.Iterate(pair);
        if (two.size() != 2) {
          FailF("dictionary update sequence element has length {}; 2 is required", two.size());
        }
        items.emplace_back(std::move(two[0]), std::move(two[1]));
      }
    }
  }
  for (const auto& [key, value] : args.keyword) items.emplace_back(rt.MakeString(key), value);
  return items;
}

Value MakeNamespace(Runtime& rt, const Value&, const CallArgs& args) {
  auto ns = rt.NewNamespace();
  for (auto& [key, value] : DictItems(rt, "namespace", args)) {
    if (!key.is_string()) FailF("namespace() names must be strings, not {}", key.type_name());
    if (key.str().starts_with('_')) {
      FailF("a namespace cannot store the underscore-prefixed name '{}'", key.str());
    }
    ns->Set(key.str(), std::move(value));
  }
  rt.budget.Items(ns->attributes.size());
  return Value(Value::ObjectRef(std::move(ns)));
}

Value MakeDictFunction(Runtime& rt, const Value&, const CallArgs& args) {
  return rt.NewDict(DictItems(rt, "dict", args));
}

Value MakeCycler(Runtime&, const Value&, const CallArgs& args) {
  if (args.positional.empty()) Fail("at least one item has to be provided");
  auto cycler = std::make_shared<Cycler>();
  cycler->depth = DepthAbove(args.positional);
  cycler->items = args.positional;
  return Value(std::move(cycler));
}

Value MakeJoiner(Runtime& rt, const Value&, const CallArgs& args) {
  const Params p("joiner", args, {"sep"});
  auto joiner = std::make_shared<Joiner>();
  joiner->separator = p.Get(0, rt.MakeString(", "));
  joiner->depth = DepthAbove({&joiner->separator, 1});
  return Value(std::move(joiner));
}

Value RaiseException(Runtime& rt, const Value&, const CallArgs& args) {
  const Params p("raise_exception", args, {"message"}, 1);
  Fail(rt.ToText(p[0]).bytes());
}

Value StrftimeNow(Runtime& rt, const Value&, const CallArgs& args) {
  const Params p("strftime_now", args, {"format"}, 1);
  const Text& format = p.String(0);
  const bool trusted = format.runs().size() <= 1 && (format.empty() || format.TrustedAt(0));
  return rt.MakeString(Text(Strftime(rt.now, format.view()), trusted));
}

constexpr NamedBuiltin kFunctions[] = {
    {"cycler", MakeCycler},        {"dict", MakeDictFunction},          {"joiner", MakeJoiner},
    {"namespace", MakeNamespace},  {"raise_exception", RaiseException}, {"range", MakeRange},
    {"strftime_now", StrftimeNow},
};

constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};

// The calendar facts that conversions of strftime need.
struct Clock {
  explicit Clock(std::chrono::local_seconds t)
      : day(std::chrono::floor<std::chrono::days>(t)), date(day), weekday(day), time(t - day) {
    year = static_cast<int>(date.year());
    month = static_cast<unsigned>(date.month());
    mday = static_cast<unsigned>(date.day());
    wday = weekday.c_encoding();
    const std::chrono::local_days first{date.year() / std::chrono::January / 1};
    yday = static_cast<int>((day - first).count());
    hour = static_cast<int>(time.hours().count());
    minute = static_cast<int>(time.minutes().count());
    second = static_cast<int>(time.seconds().count());
  }
  // ISO 8601 year and week: those of the week's Thursday.
  std::pair<int, int> IsoWeek() const {
    const std::chrono::local_days thursday =
        day + std::chrono::days(4 - static_cast<int>(weekday.iso_encoding()));
    const std::chrono::year_month_day ymd(thursday);
    const std::chrono::local_days first{ymd.year() / std::chrono::January / 1};
    return {static_cast<int>(ymd.year()), static_cast<int>((thursday - first).count()) / 7 + 1};
  }
  std::chrono::local_days day;
  std::chrono::year_month_day date;
  std::chrono::weekday weekday;
  std::chrono::hh_mm_ss<std::chrono::seconds> time;
  int year, yday, hour, minute, second;
  unsigned month, mday, wday;
};

std::string Conversion(const Clock& c, char what, bool pad);

std::string Composite(const Clock& c, std::string_view format) {
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    out += format[i] == '%' ? Conversion(c, format[++i], true) : std::string(1, format[i]);
  }
  return out;
}

std::string Conversion(const Clock& c, char what, bool pad) {
  const auto two = [&](auto n) { return pad ? fmt::format("{:02}", n) : fmt::format("{}", n); };
  const int hour12 = c.hour % 12 == 0 ? 12 : c.hour % 12;
  switch (what) {
    case 'a':
      return std::string(kDays[c.wday].substr(0, 3));
    case 'A':
      return std::string(kDays[c.wday]);
    case 'b':
    case 'h':
      return std::string(kMonths[c.month - 1].substr(0, 3));
    case 'B':
      return std::string(kMonths[c.month - 1]);
    case 'c':
      return Composite(c, "%a %b %e %H:%M:%S %Y");
    case 'C':
      return two(c.year / 100);
    case 'd':
      return two(c.mday);
    case 'D':
    case 'x':
      return Composite(c, "%m/%d/%y");
    case 'e':
      return pad ? fmt::format("{:2}", c.mday) : fmt::format("{}", c.mday);
    case 'f':
      return "000000";
    case 'F':
      return Composite(c, "%Y-%m-%d");
    case 'g':
      return two(c.IsoWeek().first % 100);
    case 'G':
      return fmt::format("{}", c.IsoWeek().first);
    case 'H':
      return two(c.hour);
    case 'I':
      return two(hour12);
    case 'j':
      return pad ? fmt::format("{:03}", c.yday + 1) : fmt::format("{}", c.yday + 1);
    case 'k':
      return pad ? fmt::format("{:2}", c.hour) : fmt::format("{}", c.hour);
    case 'l':
      return pad ? fmt::format("{:2}", hour12) : fmt::format("{}", hour12);
    case 'm':
      return two(c.month);
    case 'M':
      return two(c.minute);
    case 'n':
      return "\n";
    case 'p':
      return c.hour < 12 ? "AM" : "PM";
    case 'P':
      return c.hour < 12 ? "am" : "pm";
    case 'r':
      return Composite(c, "%I:%M:%S %p");
    case 'R':
      return Composite(c, "%H:%M");
    case 'S':
      return two(c.second);
    case 't':
      return "\t";
    case 'T':
    case 'X':
      return Composite(c, "%H:%M:%S");
    case 'u':
      return fmt::format("{}", c.wday == 0 ? 7U : c.wday);
    case 'U':
      return two((c.yday + 7 - static_cast<int>(c.wday)) / 7);
    case 'V':
      return two(c.IsoWeek().second);
    case 'w':
      return fmt::format("{}", c.wday);
    case 'W':
      return two((c.yday + 7 - static_cast<int>((c.wday + 6) % 7)) / 7);
    case 'y':
      return two(c.year % 100);
    case 'Y':
      return fmt::format("{}", c.year);
    case 'z':
    case 'Z':
      return "";  // the time has no zone
    case '%':
      return "%";
    default:
      FailF("strftime_now: unknown conversion '%{}'", what);
  }
}

}  // namespace

std::string Strftime(std::chrono::local_seconds time, std::string_view format) {
  const Clock clock(time);
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    if (++i == format.size()) Fail("strftime_now: the format ends in '%'");
    const bool plain = format[i] == '-';  // glibc: no padding
    if (plain && ++i == format.size()) Fail("strftime_now: the format ends in '%-'");
    out += Conversion(clock, format[i], !plain);
  }
  return out;
}

const NamedBuiltin* FindFunction(std::string_view name) {
  const auto* it = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                [&](const NamedBuiltin& b) { return b.name == name; });
  return it == std::end(kFunctions) ? nullptr : it;
}

std::span<const NamedBuiltin> Functions() { return kFunctions; }

}  // namespace bakestone::chat
