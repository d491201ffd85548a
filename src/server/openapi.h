// The OpenAPI document of all routes (GET /openapi.json): paths, the fields of each body with their
// JSON types, the forms of errors. A test holds it against the routes and their readers.
#pragma once

#include "server/api/fields.h"

namespace bakestone {

api::Json OpenApiDocument();

}  // namespace bakestone
