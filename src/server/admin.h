// What operators do while the server runs: GET /admin/adapters, PUT and DELETE
// /admin/adapters/{id}. With keys, only one with the word `admin` may. Files are named inside of
// the adapter folder, never by a path of the client's.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone {

void HandleListAdapters(const api::Context& context, const http::Request& request,
                        std::shared_ptr<http::Responder> responder);
void HandlePutAdapter(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder);
void HandleDeleteAdapter(const api::Context& context, const http::Request& request,
                         std::shared_ptr<http::Responder> responder);

}  // namespace bakestone
