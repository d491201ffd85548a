// Who may ask, decided from names and addresses alone. Pure functions; no sockets.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace bakestone::http {

bool EqualIgnoringCase(std::string_view a, std::string_view b);  // ASCII

// Names that mean this machine in a Host header, IP addresses, and the given names; an optional
// port is ignored. A page that rebinds its own DNS name to us sends that name, and is refused.
bool HostAllowed(std::string_view host, std::span<const std::string> allowed);

// True for 127.0.0.0/8, ::1 and "localhost".
bool IsLoopback(std::string_view address);

}  // namespace bakestone::http
