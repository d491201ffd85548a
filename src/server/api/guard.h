// Work on a request whose failure is told to the client in its API's form.
#pragma once

#include <functional>
#include <string>

#include "engine/engine.h"
#include "server/http/message.h"

namespace bakestone::api {

// Runs work; sends what it throws. engine: whose load says when to come back. Never throws.
void Guarded(const Engine& engine, const http::Request& request, http::Responder& responder, const std::function<void()>& work);

// Seconds until a client should try again.
int RetryAfter(const EngineMetrics& metrics);

}  // namespace bakestone::api
