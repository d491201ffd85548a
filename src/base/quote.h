// Text from a file or a request, made safe to put into a message: 'blk.0.attn_q.weight'. Control
// characters, quotes and bytes outside ASCII become \xNN, and what is longer than 64 bytes is cut
// and its length told, so that hostile input can neither forge a message nor flood a log.
#pragma once

#include <string>
#include <string_view>

namespace bakestone {

std::string Quote(std::string_view text);

}  // namespace bakestone
