// The progress line and what is printed around it. Everything for one change of the screen goes out
// in one write, so that lines of several threads and of other writers never mix with half a line.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>

#include "engine/base/pulse.h"
#include "engine/track/track.h"

namespace lehr::track {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr const char* kClearLine = "\r\x1b[2K";

void write_all(int fd, std::string_view text) {
  // whoever reads a terminal or a pipe may pause; a file does not
  struct stat info {};
  std::optional<Waiting> reader;
  if (::fstat(fd, &info) == 0 && !S_ISREG(info.st_mode)) reader.emplace();
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the terminal is gone, training is not
    text.remove_prefix(static_cast<size_t>(n));
  }
}

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value && *value;
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (is_set(name)) {
      std::string value = std::getenv(name);
      for (char& c : value) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      return value.find("UTF-8") != std::string::npos || value.find("UTF8") != std::string::npos;
    }
  return false;
}

// file names and data must not steer the terminal
std::string printable(std::string text) {
  for (char& c : text)
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f) c = '?';
  return text;
}

// cells on the screen, taking every code point as one
size_t cells(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string cut_to(std::string_view text, size_t width) {
  size_t used = 0, end = 0;
  while (end < text.size() && (used < width || (text[end] & 0xc0) == 0x80)) {
    used += (text[end] & 0xc0) != 0x80;
    ++end;
  }
  return std::string(text.substr(0, end));
}

std::string with_commas(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > 0 && std::isdigit(digits[at - 1]);
       at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string span_of(double seconds) {
  const int64_t s = std::llround(std::min(seconds, 1e9));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

// One part of the progress line; the least important ones leave a narrow terminal first.
struct Part {
  std::string text;
  int importance;
};

std::vector<Part> parts_of(const Progress& p, bool live, bool utf8) {
  std::vector<Part> parts;
  const double share =
      p.total_steps > 0
          ? std::clamp(static_cast<double>(p.step) / static_cast<double>(p.total_steps), 0.0, 1.0)
          : 0;
  if (live && p.total_steps > 0) {
    constexpr int kCells = 16;
    const int done = static_cast<int>(share * kCells);
    std::string bar;
    for (int i = 0; i < kCells; ++i) bar += i < done ? (utf8 ? "━" : "#") : (utf8 ? "╌" : "-");
    parts.push_back({bar, 1});
  }
  parts.push_back({p.total_steps > 0 ? fmt::format("step {}/{}", p.step, p.total_steps)
                                     : fmt::format("step {}", p.step),
                   9});
  if (p.total_steps > 0) parts.push_back({fmt::format("{:.0f}%", std::floor(share * 100)), 4});
  if (p.epochs_total > 0) {
    const double total = std::max(1.0, std::ceil(p.epochs_total));
    const double epoch = std::min(static_cast<double>(p.epoch) + 1, total);
    parts.push_back({fmt::format("epoch {}/{}", epoch, total), 3});
  }
  if (p.samples_per_s > 0)
    parts.push_back({(p.samples_per_s < 100 ? fmt::format("{:.3g}", p.samples_per_s)
                                            : with_commas(p.samples_per_s)) +
                         " samples/s",
                     6});
  if (p.seconds_left > 0) parts.push_back({span_of(p.seconds_left) + " left", 7});
  if (p.loss != 0) parts.push_back({fmt::format("loss {:.4g}", p.loss), 8});
  if (p.lr != 0) parts.push_back({fmt::format("lr {:.3g}", p.lr), 5});
  if (p.memory_bytes > 0)
    parts.push_back({p.memory_bytes < 1000000000
                         ? fmt::format("{} MB", p.memory_bytes / 1000000)
                         : fmt::format("{:.1f} GB", static_cast<double>(p.memory_bytes) / 1e9),
                     2});
  return parts;
}

std::string line_of(std::vector<Part> parts, size_t width) {
  const auto joined = [&] {
    std::string line;
    for (const Part& part : parts) line += (line.empty() ? "" : "  ") + part.text;
    return line;
  };
  while (parts.size() > 1 && cells(joined()) > width)
    parts.erase(std::min_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.importance < b.importance;
    }));
  return cut_to(joined(), width);
}

bool is_number(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return !text.empty() && !*end;
}

}  // namespace

struct Terminal::State {
  int fd;
  double plain_interval_s;
  bool live, colour, utf8;
  std::mutex mutex;
  std::string shown;  // the live line as it stands, "" when there is none
  bool drawn = false;
  Clock::time_point last_draw;
  int64_t last_step = -1;

  size_t width() const {
    winsize size{};
    if (!live) return SIZE_MAX;
    // one cell stays free: a full line would wrap on some terminals
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  }
  std::string styled(const std::string& text, const char* code) const {
    return colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
  }
  void print(const std::string& text) {
    std::string out = shown.empty() ? text + "\n" : kClearLine + text + "\n" + styled(shown, "36");
    write_all(fd, out);
  }
};

Terminal::Terminal(int fd, double plain_interval_s) : state_(std::make_unique<State>()) {
  const char* term = std::getenv("TERM");
  state_->fd = fd;
  state_->plain_interval_s = plain_interval_s;
  state_->live = ::isatty(fd) == 1 && term && *term && std::strcmp(term, "dumb") != 0;
  state_->colour = state_->live && !is_set("NO_COLOR");
  state_->utf8 = state_->live && utf8_locale();
}

Terminal::~Terminal() {
  if (!state_->shown.empty()) write_all(state_->fd, "\n");
}

bool Terminal::is_live() const { return state_->live; }

void Terminal::progress(const Progress& p) {
  State& s = *state_;
  std::lock_guard lock(s.mutex);
  const auto now = Clock::now();
  const bool last = p.total_steps > 0 && p.step >= p.total_steps && p.step != s.last_step;
  const auto pause = s.live ? std::chrono::duration_cast<Clock::duration>(kRedraw)
                            : std::chrono::duration_cast<Clock::duration>(
                                  std::chrono::duration<double>(s.plain_interval_s));
  if (s.drawn && !last && now - s.last_draw < pause) return;
  s.drawn = true;
  s.last_draw = now;
  s.last_step = p.step;
  std::string line = line_of(parts_of(p, s.live, s.utf8), s.width());
  if (!s.live) {
    write_all(s.fd, line + "\n");
    return;
  }
  s.shown = std::move(line);
  write_all(s.fd, kClearLine + s.styled(s.shown, "36"));
}

void Terminal::print(const std::string& line) {
  std::lock_guard lock(state_->mutex);
  state_->print(printable(line));
}

void Terminal::table(const std::vector<std::string>& header,
                     const std::vector<std::vector<std::string>>& rows) {
  State& s = *state_;
  std::lock_guard lock(s.mutex);
  size_t columns = header.size();
  for (const auto& row : rows) columns = std::max(columns, row.size());
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> right(columns, !rows.empty());
  const auto cell = [](const std::vector<std::string>& row, size_t c) {
    std::string text = c < row.size() ? printable(row[c]) : "";
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  };
  for (size_t c = 0; c < columns; ++c) {
    widths[c] = cells(cell(header, c));
    for (const auto& row : rows) {
      widths[c] = std::max(widths[c], cells(cell(row, c)));
      if (!is_number(cell(row, c))) right[c] = false;
    }
  }
  const auto line = [&](const std::vector<std::string>& row) {
    std::string out;
    for (size_t c = 0; c < columns; ++c) {
      const std::string text = cell(row, c), space(widths[c] - cells(text), ' ');
      out += (c ? "  " : "") + (right[c] ? space + text : text + space);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return cut_to(out, s.width());
  };
  size_t total = columns ? 2 * (columns - 1) : 0;
  for (const size_t width : widths) total += width;
  std::string rule;
  for (size_t i = 0; i < std::min(total, s.width()); ++i) rule += s.utf8 ? "─" : "-";
  std::string text = s.styled(line(header), "1") + "\n" + rule;
  for (const auto& row : rows) text += "\n" + line(row);
  s.print(text);
}

}  // namespace lehr::track
