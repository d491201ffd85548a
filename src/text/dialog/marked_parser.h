// ReplyParser for every format that has markers or JSON in the text (all but harmony's channels).
// Internal to dialog/.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/dialog/json_scanner.h"
#include "text/dialog/reply_parser.h"

namespace bakestone::dialog {

class MarkedParser : public ReplyParser {
 public:
  MarkedParser(const ReplyFormat& format, ReplyParserOptions options);
  ReplyDelta Append(std::string_view text) override;
  ReplyDelta Finish() override;
  int64_t num_calls() const override { return next_call_; }
  bool in_reasoning() const override { return state_ == State::kReasoning; }

 private:
  enum class State {
    kReasoning,
    kText,
    kHead,        // behind a marker, before the call's body
    kObject,      // in the JSON object that is the call
    kName,        // in what comes before the arguments
    kArguments,   // in JSON arguments
    kParameters,  // between tagged parameters
    kWhole,       // in a body that is read when it is complete
    kAfterCall,   // another call, the end of them, or text
  };
  // Each consumes the front of pending_ and returns true, or needs more text and returns false. At
  // the end of the reply (final_) there is no more: each then decides with what it has.
  bool Step();
  bool StepReasoning();
  bool StepText();
  bool StepHead();
  bool StepAfterCall();
  // ---- marked_bodies.cc ----
  bool StepObject();
  bool StepName();
  bool StepArguments();
  bool StepParameters();
  bool StepWhole();
  std::string NameIn(const std::string& head) const;

  static std::string Trimmed(const std::string& text);  // without white space at its ends
  void EmitText(std::string_view text);
  void EmitReasoning(std::string_view text);
  void NotACall();  // what was taken for one is text
  void BeginCall(const std::string& name);
  void AddArguments(std::string_view text);
  void EndCall();
  void BeginBody();  // from the head to the state of the syntax's shape
  // The length of the longest end of pending_ that may begin one of the markers.
  size_t HeldBytes(const std::vector<std::string>& markers) const;
  bool MayBegin(std::string_view marker) const;  // pending_ is a proper prefix of it
  bool TakeFront(const std::string& marker);
  bool AtBodyOf(char c) const;
  void SkipSpace();

  const CallSyntax& syntax_;
  const ReasoningSyntax& reasoning_;
  const ReplyParserOptions options_;
  std::vector<std::string> triggers_;   // what a call, or several, open with
  std::vector<std::string> skippable_;  // what may stand between marker and body, and between calls
  std::string call_end_, section_end_, key_begin_, value_end_, parameters_end_;
  bool bare_ = false;  // calls have no marker

  State state_ = State::kText;
  std::string pending_;
  std::string taken_;  // of what may be a call: given back as text if it is none
  std::optional<CallObjectScanner> object_;
  std::optional<JsonScanner> value_;
  std::string name_;
  bool in_call_ = false;  // begun, not ended
  bool reasoning_begun_ = false;
  bool first_parameter_ = true;
  bool anything_ = false;    // text or a call was seen
  bool strip_text_ = false;  // white space before the next text is dropped
  std::string held_space_, held_reasoning_;
  bool final_ = false;
  int64_t next_call_ = 0;
  ReplyDelta delta_;
};

}  // namespace bakestone::dialog
