#include "engine/export/archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "engine/base/error.h"

namespace lehr::artefact {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56,
                   kLocatorSize = 20;
constexpr uint32_t kIn64 = 0xffffffff;  // the real number is in the zip64 field

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(Code::kCheckpoint, "no archive that Lehr wrote: " + why, path_,
                "export the model again");
  }
  std::string_view part(uint64_t at, uint64_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) refuse("it points outside of itself");
    return bytes_.substr(at, size);
  }
  template <class T>
  T number(uint64_t at) const {
    T value;
    std::memcpy(&value, part(at, sizeof(T)).data(), sizeof(T));  // zip is little-endian, so are we
    return value;
  }
  uint64_t size() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  const std::string& path_;
};

struct Directory {
  uint64_t offset = 0, size = 0, count = 0, end = 0;
};

// the directory's place, from the record at the very end of the file (so no comment follows it)
Directory find_directory(const Reader& in) {
  if (in.size() < kEndSize) in.refuse("it is too short");
  const uint64_t at = in.size() - kEndSize;
  if (in.number<uint32_t>(at) != kEnd || in.number<uint16_t>(at + 20) != 0)
    in.refuse("it does not end with its directory");
  Directory d{in.number<uint32_t>(at + 16), in.number<uint32_t>(at + 12),
              in.number<uint16_t>(at + 10), at};
  if (at >= kLocatorSize && in.number<uint32_t>(at - kLocatorSize) == kLocator64) {
    const uint64_t at64 = in.number<uint64_t>(at - kLocatorSize + 8);
    if (in.number<uint32_t>(at64) != kEnd64) in.refuse("its zip64 record is missing");
    d = {in.number<uint64_t>(at64 + 48), in.number<uint64_t>(at64 + 40),
         in.number<uint64_t>(at64 + 32), at64};
    if (at64 + kEnd64Size != at - kLocatorSize) in.refuse("its zip64 record is not at the end");
  }
  if (d.offset > d.end || d.size != d.end - d.offset)
    in.refuse("its directory has another size than it says");
  return d;
}

// takes 64-bit numbers for those of `fields` that are kIn64, in the order that the format fixes
void read_zip64(const Reader& in, uint64_t at, uint64_t size, std::vector<uint64_t*> fields) {
  while (size >= 4) {
    const auto id = in.number<uint16_t>(at), length = in.number<uint16_t>(at + 2);
    if (length > size - 4) in.refuse("an extra field is too long");
    if (id == 1) {
      uint64_t used = 0;
      for (auto* field : fields) {
        if (*field != kIn64) continue;
        if (used + 8 > length) in.refuse("a zip64 field is too short");
        *field = in.number<uint64_t>(at + 4 + used);
        used += 8;
      }
      return;
    }
    at += 4 + length, size -= 4 + length;
  }
}

bool is_plain(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.back() == '/') return false;
  std::string part;
  for (char c : name + "/") {
    if (c != '/') {
      if (static_cast<unsigned char>(c) < 0x21 || static_cast<unsigned char>(c) > 0x7e || c == '\\')
        return false;
      part += c;
      continue;
    }
    if (part.empty() || part == "." || part == "..") return false;
    part.clear();
  }
  return true;
}

}  // namespace

std::vector<Member> read_archive(std::string_view bytes, const std::string& path) {
  Reader in(bytes, path);
  const Directory directory = find_directory(in);
  std::vector<Member> members;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  std::set<std::string> seen;
  std::string top;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (in.number<uint32_t>(at) != kCentral) in.refuse("its directory is damaged");
    const auto flags = in.number<uint16_t>(at + 8), method = in.number<uint16_t>(at + 10);
    uint64_t packed = in.number<uint32_t>(at + 20), size = in.number<uint32_t>(at + 24);
    const auto name_size = in.number<uint16_t>(at + 28), extra = in.number<uint16_t>(at + 30),
               comment = in.number<uint16_t>(at + 32);
    uint64_t local = in.number<uint32_t>(at + 42);
    const std::string name(in.part(at + kCentralSize, name_size));
    read_zip64(in, at + kCentralSize + name_size, extra, {&size, &packed, &local});
    at += kCentralSize + name_size + extra + comment;

    if (!is_plain(name)) in.refuse("a member has no plain name");
    if (method != 0 || packed != size) in.refuse("its member " + name + " is compressed");
    if (flags & 1) in.refuse("its member " + name + " is encrypted");
    // LibTorch looks members up without regard to case
    std::string folded = name;
    std::transform(folded.begin(), folded.end(), folded.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    if (!seen.insert(folded).second) in.refuse("its member " + name + " is there twice");
    const size_t slash = name.find('/');
    if (slash == std::string::npos) in.refuse("its member " + name + " is not in a folder");
    if (top.empty()) top = name.substr(0, slash);
    if (name.substr(0, slash) != top) in.refuse("it has two top folders");

    // the header in front of the content must tell the same
    if (in.number<uint32_t>(local) != kLocal) in.refuse("its member " + name + " has no header");
    if (in.number<uint16_t>(local + 8) != method ||
        in.part(local + kLocalSize, in.number<uint16_t>(local + 26)) != name)
      in.refuse("its member " + name + " has another header");
    const uint64_t begin = local + kLocalSize + name_size + in.number<uint16_t>(local + 28);
    members.push_back({name.substr(slash + 1), in.part(begin, size)});
    ranges.emplace_back(local, begin + size);
  }
  if (at != directory.end) in.refuse("its directory has another size than it says");
  std::sort(ranges.begin(), ranges.end());
  uint64_t end = 0;
  for (const auto& [begin, stop] : ranges) {
    if (begin < end) in.refuse("its members overlap");
    end = stop;
  }
  if (end > directory.offset) in.refuse("its members overlap the directory");
  if (ranges.empty() || ranges.front().first != 0) in.refuse("it does not begin with a member");
  return members;
}

}  // namespace lehr::artefact
