// Which pages of other origins a browser may let ask here: none, unless the server was told. Pure:
// no sockets.
#pragma once

#include <optional>
#include <string>

#include "server/http/http_server.h"

namespace bakestone::http {

// Throws kInvalidArgument for what no browser says of a page, and would allow nothing.
void CheckOrigins(const HttpOptions& options);

// Header lines for an answer to this request; empty where its origin is not allowed, or it has
// none.
std::string CorsHeaders(const HttpOptions& options, const Request& head);

// True for a browser's question before the request itself, from an allowed origin: it carries no
// key.
bool IsPreflight(const HttpOptions& options, const Request& head);
Response PreflightAnswer(const Request& head);

}  // namespace bakestone::http
