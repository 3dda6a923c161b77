#include "engine/recipe/text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <vector>

#include "engine/base/error.h"

namespace lehr::recipe {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// "did you mean x.yaml?" from the names beside a file that is not there
std::string neighbour(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path wanted(path);
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator it(wanted.has_parent_path() ? wanted.parent_path() : ".", error), end;
  for (; !error && it != end && names.size() < 1000; it.increment(error)) {
    auto extension = it->path().extension();
    if (extension == ".yaml" || extension == ".yml") names.push_back(it->path().filename());
  }
  std::string best = nearest(wanted.filename(), names);
  if (best.empty()) return "";
  return fmt::format("did you mean {}?", (wanted.parent_path() / best).string());
}

// Length of the UTF-8 sequence at `p`, its code point in `code`; 0 when it is none.
size_t decode(const unsigned char* p, size_t left, uint32_t& code) {
  if (p[0] < 0x80) return code = p[0], 1;
  size_t length = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
  if (p[0] < 0xC2 || p[0] > 0xF4 || left < length) return 0;
  code = p[0] & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((p[i] & 0xC0) != 0x80) return 0;
    code = code << 6 | (p[i] & 0x3F);
  }
  static constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < smallest[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

bool allowed(uint32_t c) {
  if (c < 0x80) return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0x7F);
  return c == 0x85 || (c >= 0xA0 && c != 0xFEFF && c != 0xFFFE && c != 0xFFFF);
}

}  // namespace

std::optional<std::string> read_text(const std::string& path, const Mark& blame,
                                     Mistakes& mistakes) {
  auto fail = [&](const std::string& what, const std::string& hint = "") {
    // the file itself is to blame, or the line of another one that names it
    bool itself = blame.source && blame.source->name == path;
    mistakes.add(blame, "", itself ? what : fmt::format("{}: {}", shown(path), what), hint);
    return std::nullopt;
  };
  // O_NONBLOCK: opening a pipe must not wait for its other end
  Descriptor file{::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)};
  if (file.fd < 0) {
    int error = errno;
    return fail(fmt::format("cannot be opened: {}", std::strerror(error)),
                error == ENOENT ? neighbour(path) : "");
  }
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) {
    return fail(fmt::format("cannot be read: {}", std::strerror(errno)));
  }
  if (S_ISDIR(info.st_mode)) return fail("is a folder", "name a recipe file in it");
  if (!S_ISREG(info.st_mode)) return fail("is not a regular file");
  if (info.st_size == 0) return fail("is empty", "a recipe holds sections like model and data");
  // it may grow while it is read
  std::string text;
  std::vector<char> block(64 << 10);
  while (text.size() <= kMaxBytes) {
    ssize_t got = ::read(file.fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) break;
    text.append(block.data(), static_cast<size_t>(got));
  }
  if (text.size() > kMaxBytes) return fail("is larger than 1 MiB", "is this a recipe?");
  return text;
}

bool check_text(const std::string& text, const SourcePtr& source, Mistakes& mistakes) {
  Mark mark{source, 1, 1};
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;  // a byte order mark is no content
  while (at < text.size()) {
    // libyaml compares each %TAG with all before it, and recipes have no tags
    if (mark.column == 1 && text.compare(at, 4, "%TAG") == 0) {
      mistakes.add(mark, "", "tags are not part of a recipe", "remove the %TAG line");
      return false;
    }
    uint32_t code = 0;
    size_t length = decode(bytes + at, text.size() - at, code);
    if (length == 0) {
      mistakes.add(mark, "", fmt::format("byte 0x{:02x} is not UTF-8", bytes[at]),
                   "save the file as UTF-8");
      return false;
    }
    if (!allowed(code)) {
      mistakes.add(mark, "", fmt::format("character U+{:04X} is not allowed", code),
                   code == 0 ? "is this a text file?" : "remove it, or escape it in \"\"");
      return false;
    }
    bool line_ends =
        code == '\n' || (code == '\r' && (at + 1 >= text.size() || text[at + 1] != '\n'));
    mark.line += line_ends;
    mark.column = line_ends ? 1 : mark.column + 1;
    at += length;
  }
  return true;
}

}  // namespace lehr::recipe
