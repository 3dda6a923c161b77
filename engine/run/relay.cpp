#include "engine/run/relay.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace lehr::run {
namespace {

constexpr auto kFold = std::chrono::milliseconds(100);  // how long a line waits for others' same
constexpr int kStdout = 1;

}  // namespace

void Relay::add(int rank, int stream, int fd) {
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
  sources_.push_back({rank, stream, fd, ""});
  last_.resize(std::max(last_.size(), static_cast<size_t>(rank) + 1));
  last_[static_cast<size_t>(rank)].clear();
}

void Relay::forget() {
  for (const auto& source : sources_) ::close(source.fd);
  sources_.clear();
}

std::vector<int> Relay::fds() const {
  std::vector<int> fds;
  for (const auto& source : sources_) fds.push_back(source.fd);
  return fds;
}

std::string Relay::last_line(int rank) const { return last_.at(static_cast<size_t>(rank)); }

void Relay::read(std::chrono::milliseconds patience) {
  std::vector<pollfd> polls;
  for (const auto& source : sources_) polls.push_back({source.fd, POLLIN, 0});
  if (polls.empty())
    std::this_thread::sleep_for(std::min(patience, std::chrono::milliseconds(5)));
  else
    ::poll(polls.data(), polls.size(), static_cast<int>(patience.count()));
  for (auto& source : sources_) drain(source);
  std::erase_if(sources_, [](const Source& source) { return source.fd < 0; });
  print_held(false);
}

void Relay::drain(Source& source) {
  char buffer[4096];
  for (ssize_t n; (n = ::read(source.fd, buffer, sizeof buffer)) >= 0;) {
    if (n == 0) {
      ::close(source.fd);
      source.fd = -1;
      if (!source.rest.empty()) take(source, source.rest);
      return;
    }
    source.rest.append(buffer, static_cast<size_t>(n));
    for (size_t end; (end = source.rest.find('\n')) != std::string::npos;) {
      take(source, source.rest.substr(0, end));
      source.rest.erase(0, end + 1);
    }
  }
}

void Relay::take(const Source& source, const std::string& line) {
  if (!line.empty()) last_[static_cast<size_t>(source.rank)] = line;
  if (source.rank == 0) return print(source.stream, line);
  for (auto& held : held_)
    if (held.line == line && held.stream == source.stream) return held.ranks.push_back(source.rank);
  held_.push_back({line, source.stream, {source.rank}, Clock::now()});
}

void Relay::print(int stream, const std::string& line) {
  (stream == kStdout ? output_ : errors_).print(line);
}

void Relay::flush() { print_held(true); }

void Relay::print_held(bool all) {
  while (!held_.empty() && (all || Clock::now() - held_.front().since > kFold)) {
    Held& held = held_.front();
    std::sort(held.ranks.begin(), held.ranks.end());
    print(held.stream, fmt::format("[rank{} {}] {}", held.ranks.size() > 1 ? "s" : "",
                                   fmt::join(held.ranks, ", "), held.line));
    held_.erase(held_.begin());
  }
}

}  // namespace lehr::run
