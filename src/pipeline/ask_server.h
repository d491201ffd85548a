// One question to a running server over HTTP, as any client would ask it.
#pragma once

#include <cstdint>
#include <string>

namespace bakestone {

// messages: a JSON list. Greedy. Returns the answer's text. Throws kIo (no connection) or
// kUnavailable with the server's own message.
std::string AskServer(const std::string& url, const std::string& model, const std::string& messages,
                      int64_t max_tokens);

}  // namespace bakestone
