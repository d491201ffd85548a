// What can be refused from a request's head alone, before a byte of its body is read. Pure: no
// sockets.
#pragma once

#include <optional>
#include <string>

#include "server/http/http_server.h"

namespace bakestone::http {

// An answer that http/ itself gives, with the code of an error body.
struct Refusal {
  int status = 400;
  std::string message, code;
};

// The framing that the parser found beside the header fields.
struct Framing {
  int version = 11;  // 10 or 11
  bool chunked = false;
};

// Sets head.key where a key was shown and is known. The body is not looked at.
std::optional<Refusal> CheckHead(const HttpOptions& options, const KeyRing& keys, Framing framing,
                                 Request& head);

}  // namespace bakestone::http
