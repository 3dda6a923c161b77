// What several ranks print, as lines of one program: the lead's plain, the others' with their rank,
// the same line of several ranks once. What goes to stdout there goes to stdout here.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "engine/track/track.h"

namespace lehr::run {

class Relay {
 public:
  // `errors`: where stderr goes.
  explicit Relay(track::Terminal& errors) : errors_(errors) {}

  // The read end of what a rank prints, which is the relay's from now on.
  void add(int rank, int stream, int fd);
  void forget();  // all ends; lines that are not complete are lost
  // Waits for up to `patience` for something to read; prints what is due.
  void read(std::chrono::milliseconds patience);
  void flush();  // the lines that were held for others
  std::string last_line(int rank) const;
  std::vector<int> fds() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Source {
    int rank, stream, fd;
    std::string rest;  // a line that is not complete
  };
  struct Held {
    std::string line;
    int stream;
    std::vector<int> ranks;
    Clock::time_point since;
  };
  void drain(Source& source);
  void take(const Source& source, const std::string& line);
  void print(int stream, const std::string& line);
  void print_held(bool all);

  track::Terminal& errors_;
  track::Terminal output_{1};
  std::vector<Source> sources_;
  std::vector<Held> held_;
  std::vector<std::string> last_;  // by rank
};

}  // namespace lehr::run
