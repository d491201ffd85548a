// How JSON enters a template.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "text/chat/objects.h"

namespace bakestone::chat {

// One value of the context. Strings are the user's unless `trusted`, or a known role.
Value ImportContext(const nlohmann::ordered_json& json, bool trusted, const RenderOptions& options);

}  // namespace bakestone::chat
