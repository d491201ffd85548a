// How a reply that calls functions is written in a syntax, in pieces that stand one behind the
// other: for whoever begins a reply with a call, or holds a reply to calls (grammar/calls.h). What
// is written so is what MakeReplyParser reads. Plain data and pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/dialog/reply_format.h"

namespace bakestone::dialog {

// In a piece, "\x01" stands for an id and "\x02" for a call's index; all else is as it is written.
struct WrittenCalls {
  enum class Arguments : char {
    kNone,   // the syntax cannot be written
    kJson,   // a JSON object
    kNamed,  // key_begin k key_end VALUE value_end, with `comma` between them; a value is JSON, but
             // for `quote`
  };
  // A marker at which, in free text, calls begin, and what stands between it and the name.
  struct Opening {
    std::string marker, rest;
    bool all = true;  // it opens all calls; else one, which `last` does not follow
  };

  Arguments arguments = Arguments::kNone;
  std::string first = {}, between = {}, last = {};    // before, between and behind calls
  std::string begin = {}, after_name = {}, end = {};  // begin f after_name ARGUMENTS end
  std::vector<std::string> other_after_name = {};     // as some models write it
  std::string key_begin = {}, key_end = {}, value_end = {}, comma = {};
  bool plain_strings = false;  // a parameter that can only be a string is written as it is,
  std::string quote = {};      // between these
  bool several = false;        // more than one call may be written
  std::vector<Opening> openings = {};
  bool bare = false;  // nothing marks a call: a reply is calls if it begins as one
};

WrittenCalls WriteCalls(const CallSyntax& syntax, bool parallel);

// What a reply begins with that calls the function; name empty: one of several. An id is "0". White
// space at the end is left out: it belongs to the tokens of what follows.
std::string CallOpening(const WrittenCalls& calls, const std::string& name);

// The markers that a part of a syntax is made of: "<a><b>[" is "<a>", "<b>" and "[". Internal to
// dialog/, like what follows.
std::vector<std::string> Lexemes(const std::string& text);

// What calls open with in free text: of section_begin or call_begin its first marker, empty where
// there is none, and all of its markers.
struct OpeningMarkers {
  std::string trigger = {};
  std::vector<std::string> all = {};
};
OpeningMarkers OpeningMarkersOf(const CallSyntax& syntax, const std::string& part);

}  // namespace bakestone::dialog
