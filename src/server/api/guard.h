// Work on a request whose failure is told to the client in its API's form.
#pragma once

#include <functional>
#include <string>

#include "engine/serving_loop.h"
#include "server/http/message.h"

namespace bakestone::api {

// Runs work; sends what it throws. loop: whose load says when to come back. Never throws.
void Guarded(const ServingLoop& loop, const http::Request& request, http::Responder& responder,
             const std::function<void()>& work);

// Seconds until a client should try again.
int RetryAfter(const LoopMetrics& metrics);

}  // namespace bakestone::api
