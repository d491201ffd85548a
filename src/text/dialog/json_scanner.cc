#include "text/dialog/json_scanner.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

namespace bakestone::dialog {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The string that a JSON string stands for; the text itself where it is none.
std::string Unquote(const std::string& json) {
  const auto value = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  return value.is_string() ? value.get<std::string>() : json;
}

}  // namespace

void JsonScanner::Begin(char c) {
  begun_ = true;
  if (c == '{' || c == '[') {
    open_.push_back(c);
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '-' || (c >= '0' && c <= '9') || c == 't' || c == 'f' || c == 'n') {
    scalar_ = true;
  } else {
    failed_ = true;
  }
}

bool JsonScanner::InScalar(char c) const {
  return c != ',' && c != '}' && c != ']' && c != '"' && !IsSpace(c);
}

size_t JsonScanner::Feed(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char c = bytes[i];
    if (done_ || failed_) return i;
    if (!begun_) {
      if (!IsSpace(c)) Begin(c);
      if (failed_) return i;
    } else if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        done_ = open_.empty();
      }
    } else if (scalar_) {
      done_ = !InScalar(c);
      if (done_) return i;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      open_.push_back(c);
      failed_ = open_.size() > kMaxDepth;
    } else if (c == '}' || c == ']') {
      failed_ = open_.back() != (c == '}' ? '{' : '[');
      if (failed_) return i;
      open_.pop_back();
      done_ = open_.empty();
    }
  }
  return bytes.size();
}

nlohmann::ordered_json ParseBounded(const std::string& text) {
  using Json = nlohmann::ordered_json;
  JsonScanner scanner;
  scanner.Feed(text);
  return scanner.failed() ? Json(Json::value_t::discarded)
                          : Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

void CallObjectScanner::EndKey() {
  key_ = Unquote(text_);
  text_.clear();
  if (name_key_.empty() && first_key_) {
    name_ = key_;
    has_name_ = true;
  }
  state_ = State::kColon;
}

void CallObjectScanner::FeedValue(std::string_view bytes) {
  const bool is_arguments = name_key_.empty() ? first_key_ : key_ == arguments_key_;
  if (is_arguments && !saw_arguments_ && text_.empty()) {
    bytes.remove_prefix(std::min(bytes.find_first_not_of(" \n\t\r"), bytes.size()));
    if (bytes.empty()) return;
  }
  // A string is needed whole: the name, or arguments that a model wrapped into a string.
  const bool whole =
      !is_arguments || text_.starts_with('"') || (!saw_arguments_ && bytes.starts_with('"'));
  if (whole) {
    text_ += bytes;
  } else {
    saw_arguments_ = true;
    arguments_ += bytes;
  }
}

void CallObjectScanner::EndValue() {
  const bool is_arguments = name_key_.empty() ? first_key_ : key_ == arguments_key_;
  if (is_arguments && !text_.empty()) {
    arguments_ += Unquote(text_);
    saw_arguments_ = true;
  } else if (!name_key_.empty() && key_ == name_key_ && !has_name_) {
    const size_t begin = text_.find_first_not_of(" \n\t\r");
    name_ = Unquote(begin == std::string::npos ? text_ : text_.substr(begin));
    has_name_ = true;
  }
  text_.clear();
  first_key_ = false;
  value_ = JsonScanner();
  state_ = State::kAfterValue;
}

size_t CallObjectScanner::Feed(std::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size() && state_ != State::kDone && state_ != State::kFailed) {
    const char c = bytes[at];
    if (state_ == State::kKey || state_ == State::kValue) {
      const std::string_view rest = bytes.substr(at);
      const size_t taken = value_.Feed(rest);
      if (state_ == State::kKey) {
        text_ += rest.substr(0, taken);
      } else {
        FeedValue(rest.substr(0, taken));
      }
      at += taken;
      if (value_.failed()) {
        state_ = State::kFailed;
      } else if (value_.done() && state_ == State::kKey) {
        value_ = JsonScanner();
        EndKey();
      } else if (value_.done()) {
        EndValue();
      }
      continue;
    }
    ++at;
    if (IsSpace(c)) continue;
    if (state_ == State::kBegin && c == '{') {
      state_ = State::kAfterValue;
    } else if (state_ == State::kAfterValue && c == '"') {
      state_ = State::kKey;
      --at;
    } else if (state_ == State::kAfterValue && c == '}') {
      state_ = State::kDone;
    } else if (state_ == State::kColon && c == ':') {
      state_ = State::kValue;
    } else if (!(state_ == State::kAfterValue && c == ',')) {
      state_ = State::kFailed;
      --at;
    }
  }
  return at;
}

}  // namespace bakestone::dialog
