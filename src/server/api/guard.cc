#include "server/api/guard.h"

#include <algorithm>

#include "base/log.h"
#include "server/api/api_error.h"

namespace bakestone::api {

int RetryAfter(const LoopMetrics& metrics) {
  // About how long until a few of those that wait are done, from what was finished so far.
  const double each =
      metrics.finished > 0 ? metrics.busy_seconds / static_cast<double>(metrics.finished) : 1;
  return static_cast<int>(std::clamp(each * static_cast<double>(metrics.waiting) / 4, 1.0, 60.0));
}

void Guarded(const ServingLoop& loop, const http::Request& request, http::Responder& responder,
             const std::function<void()>& work) {
  const Family family = FamilyOf(request.path);
  try {
    work();
  } catch (const ApiError& error) {
    responder.Send(ToResponse(error, family));
  } catch (const Error& error) {
    ApiError api = FromError(error);
    if (error.code() == ErrorCode::kUnavailable && !loop.Draining()) {
      api.status = 429;
      api.code = "queue_full";
      api.retry_after = RetryAfter(loop.Load());
    }
    if (api.status >= 500) LogWarning("{} {}: {}", request.method, request.path, error.what());
    responder.Send(ToResponse(api, family));
  } catch (const std::exception& error) {
    LogError("{} {}: {}", request.method, request.path, error.what());
    ApiError api;
    api.status = 500;
    api.message = "the server failed on this request; its log says why";
    api.code = "internal_error";
    responder.Send(ToResponse(api, family));
  }
}

}  // namespace bakestone::api
