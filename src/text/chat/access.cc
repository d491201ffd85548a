// Attributes, items, slices and membership, as jinja2's ImmutableSandboxedEnvironment does them.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/chat/builtins.h"
#include "text/chat/objects.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

std::string Repr(const Value& value) {
  Text out;
  AppendRepr(out, value);
  return out.bytes();
}

Value Missing(const Value& value, const Value& key) {
  const std::string type = value.is_none() ? "None" : fmt::format("{} object", value.type_name());
  return Value::MakeUndefined(
      fmt::format("'{}' has no {} {}", type, key.is_string() ? "attribute" : "element", Repr(key)));
}

Value Unsafe(const Value& value, const std::string& name) {
  return Value::MakeUndefined(
      fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, value.type_name()));
}

// The Python attribute, where there is one.
std::optional<Value> FindAttribute(const Value& value, const std::string& name) {
  if (const auto* ns = value.As<Namespace>()) {
    if (const Value* found = ns->Find(name)) return *found;
    return std::nullopt;
  }
  if (const auto* cycler = value.As<Cycler>(); cycler != nullptr && name == "current") {
    return cycler->items[cycler->pos];
  }
  if (const auto* loop = value.As<Loop>()) {
    if (auto found = LoopAttribute(*loop, name)) return found;
  }
  if (const auto* range = value.As<Range>()) {
    if (name == "start") return Value(range->start);
    if (name == "stop") return Value(range->stop);
    if (name == "step") return Value(range->step);
  }
  if (auto found = MacroAttribute(value, name)) return found;
  if (IsMutatingMethod(value, name)) return Unsafe(value, name);
  if (HasMethod(value, name)) {
    auto method = std::make_shared<BoundMethod>();
    method->depth = DepthAbove({&value, 1});
    method->self = value;
    method->name = name;
    return Value(std::move(method));
  }
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__") &&
      (name == "__class__" || name == "__init__" || name == "__doc__" || name == "__eq__")) {
    return Unsafe(value, name);
  }
  return std::nullopt;
}

// value[key] of Python; none for a LookupError or TypeError, which jinja2 turns into undefined.
std::optional<Value> FindItem(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_dict()) {
    if (!Hashable(key)) return std::nullopt;
    const Value* found = value.dict().Find(key);
    return found != nullptr ? std::optional(*found) : std::nullopt;
  }
  if (!key.is_integral()) return std::nullopt;
  const auto* range = value.As<Range>();
  if (!value.is_list() && !value.is_string() && range == nullptr) return std::nullopt;
  const auto size = static_cast<Int>(*Length(value));
  Int index = key.as_int();
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  const auto at = static_cast<std::size_t>(index);
  if (value.is_list()) return value.list().items[at];
  if (range != nullptr) return Value(range->start + index * range->step);
  const Text& text = value.text();
  runtime.budget.Work(text.size());
  const std::size_t begin = ByteOffset(text.view(), at);
  std::size_t end = begin;
  NextCodePoint(text.view(), end);
  return runtime.MakeString(text.Slice(begin, end));
}

std::optional<Int> SliceIndex(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (!value.is_integral()) {
    Fail("slice indices must be integers or None or have an __index__ method");
  }
  return value.as_int();
}

struct SliceBounds {
  Int start, stop, step;
  std::size_t count() const {
    Range range;
    range.start = start;
    range.stop = stop;
    range.step = step;
    return range.size();
  }
};

SliceBounds ResolveSlice(const Value& start, const Value& stop, const Value& step, Int size) {
  SliceBounds out{};
  out.step = SliceIndex(step).value_or(1);
  if (out.step == 0) Fail("slice step cannot be zero");
  out.step = std::clamp<Int>(out.step, -size - 1, size + 1);
  const bool down = out.step < 0;
  const Int low = down ? -1 : 0;
  const Int high = down ? size - 1 : size;
  const auto resolve = [&](const Value& v, Int missing) {
    const std::optional<Int> index = SliceIndex(v);
    if (!index) return missing;
    return std::clamp(*index < 0 ? *index + size : *index, low, high);
  };
  out.start = resolve(start, down ? high : low);
  out.stop = resolve(stop, down ? low : high);
  return out;
}

Value SliceText(Runtime& runtime, const Text& text, const SliceBounds& bounds) {
  runtime.budget.Work(text.size());
  if (bounds.step == 1) {
    const auto first = static_cast<std::size_t>(bounds.start);
    const std::size_t begin = ByteOffset(text.view(), first);
    const std::size_t length = bounds.count();
    const std::size_t end = begin + ByteOffset(text.view().substr(begin), length);
    return runtime.MakeString(text.Slice(begin, end));
  }
  std::vector<std::size_t> offsets;
  for (std::size_t p = 0; p < text.size(); NextCodePoint(text.view(), p)) offsets.push_back(p);
  offsets.push_back(text.size());
  Text out;
  out.set_markup(text.markup());
  const std::size_t n = bounds.count();
  for (std::size_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(bounds.start + static_cast<Int>(i) * bounds.step);
    out.Append(text, offsets[at], offsets[at + 1]);
  }
  return runtime.MakeString(std::move(out));
}

}  // namespace

Value GetAttribute(Runtime& runtime, const Value& value, const Value& name) {
  if (value.is_undefined()) Fail(value.undefined_message());
  if (auto found = FindAttribute(value, name.str())) return *found;
  if (auto found = FindItem(runtime, value, name)) return *found;
  return Missing(value, name);
}

Value GetItem(Runtime& runtime, const Value& value, const Value& key) {
  if (value.is_undefined()) Fail(value.undefined_message());
  if (auto found = FindItem(runtime, value, key)) return *found;
  if (key.is_string()) {
    if (auto found = FindAttribute(value, key.str())) return *found;
  }
  return Missing(value, key);
}

Value GetSlice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
               const Value& step) {
  if (value.is_undefined()) Fail(value.undefined_message());
  const auto* range = value.As<Range>();
  if (!value.is_list() && !value.is_string() && range == nullptr) {
    FailF("'{}' object is not subscriptable with a slice", value.type_name());
  }
  const SliceBounds bounds = ResolveSlice(start, stop, step, static_cast<Int>(*Length(value)));
  if (value.is_string()) return SliceText(runtime, value.text(), bounds);
  const std::size_t n = bounds.count();
  if (range != nullptr) {
    auto out = std::make_shared<Range>();
    out->start = range->start + bounds.start * range->step;
    out->stop = range->start + bounds.stop * range->step;
    out->step = range->step * bounds.step;
    return Value(std::move(out));
  }
  std::vector<Value> items;
  items.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    items.push_back(
        value.list()
            .items[static_cast<std::size_t>(bounds.start + static_cast<Int>(i) * bounds.step)]);
  }
  return runtime.NewList(std::move(items), value.is_tuple());
}

bool Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      FailF("'in <string>' requires string as left operand, not {}", item.type_name());
    }
    runtime.budget.Work(container.text().size());
    return container.str().find(item.str()) != std::string::npos;
  }
  if (container.is_dict() || (container.As<DictView>() != nullptr &&
                              container.As<DictView>()->part == DictView::Part::kKeys)) {
    if (!Hashable(item)) FailF("unhashable type: '{}'", item.type_name());
    const Dict& dict = container.is_dict() ? container.dict() : *container.As<DictView>()->dict;
    return dict.Find(item) != nullptr;
  }
  if (container.is_undefined()) return false;
  if (!Iterable(container)) FailF("argument of type '{}' is not iterable", container.type_name());
  const std::vector<Value> items =
      container.is_list() ? std::vector<Value>() : runtime.Iterate(container);
  const std::vector<Value>& all = container.is_list() ? container.list().items : items;
  runtime.budget.Step(static_cast<std::int64_t>(all.size()));
  return std::any_of(all.begin(), all.end(), [&](const Value& v) { return Equal(v, item); });
}

}  // namespace bakestone::chat
