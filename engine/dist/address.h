// Which of this host's addresses the ranks of other hosts can reach.
#pragma once

#include <cstdint>
#include <string>

namespace lehr::dist {

bool is_loopback(const std::string& address);  // as it is written

// The address from which the way to the lead leaves. On the lead itself, whose own name Debian's
// /etc/hosts puts on loopback, that of its first interface. Loopback where the lead was given as
// that, or where there is nothing else.
std::string own_address(const std::string& lead, uint16_t port);

}  // namespace lehr::dist
