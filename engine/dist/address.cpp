#include "engine/dist/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>

namespace lehr::dist {
namespace {

constexpr const char* kLoopback = "127.0.0.1";

std::string text_of(const sockaddr* address, socklen_t size) {
  char text[NI_MAXHOST] = "";
  const bool read =
      ::getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
  return read ? text : "";
}

// Connecting a datagram socket sends nothing, and chooses an interface.
std::string address_toward(const std::string& host, uint16_t port) {
  addrinfo wanted{}, *list = nullptr;
  wanted.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &list) != 0) return "";
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  std::string found;
  for (const addrinfo* at = list; at && found.empty(); at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage mine{};
    socklen_t size = sizeof mine;
    if (::connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &size) == 0)
      found = text_of(reinterpret_cast<sockaddr*>(&mine), size);
    ::close(fd);
  }
  return found;
}

std::string first_interface() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "";
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  for (const ifaddrs* at = list; at; at = at->ifa_next) {
    const bool usable = at->ifa_addr && at->ifa_addr->sa_family == AF_INET &&
                        (at->ifa_flags & IFF_UP) && !(at->ifa_flags & IFF_LOOPBACK);
    if (usable) return text_of(at->ifa_addr, sizeof(sockaddr_in));
  }
  return "";
}

}  // namespace

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1" || address == "localhost";
}

std::string own_address(const std::string& lead, uint16_t port) {
  if (is_loopback(lead)) return kLoopback;
  std::string address = address_toward(lead, port);
  if (address.empty() || is_loopback(address)) address = first_interface();
  return address.empty() ? kLoopback : address;
}

}  // namespace lehr::dist
