#include "engine/data/bytes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/base/error.h"
#include "engine/base/hash.h"

namespace lehr::data {
namespace {

// Large memory asks for 2 MiB pages: shuffled samples would miss the address cache almost every
// time.
std::shared_ptr<uint8_t[]> allocate(size_t size) {
  constexpr size_t kPage = size_t{2} << 20;
  if (size < 2 * kPage) return std::make_shared_for_overwrite<uint8_t[]>(std::max<size_t>(size, 1));
  const size_t rounded = (size + kPage - 1) / kPage * kPage;
  void* memory = std::aligned_alloc(kPage, rounded);
  if (!memory) throw std::bad_alloc();
  ::madvise(memory, rounded, MADV_HUGEPAGE);  // advice only: without it everything still works
  return {static_cast<uint8_t*>(memory), [](uint8_t* p) { std::free(p); }};
}

Bytes read_stored(const std::string& path, const std::string& hint) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const bool missing = errno == ENOENT;
    throw Error(Code::kData,
                missing ? "the file is missing" : fmt::format("cannot open: {}", strerror(errno)),
                path, missing && hint.empty() ? "Check the path." : hint);
  }
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat status;
  if (::fstat(fd, &status) != 0)
    throw Error(Code::kData, fmt::format("cannot read: {}", strerror(errno)), path);
  if (!S_ISREG(status.st_mode)) throw Error(Code::kData, "is not a plain file", path);
  Bytes bytes{path, allocate(status.st_size), static_cast<size_t>(status.st_size), ""};
  for (size_t done = 0; done < bytes.size;) {
    ssize_t n = ::read(fd, bytes.memory.get() + done, bytes.size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) bad_byte(path, done, fmt::format("cannot read: {}", strerror(errno)));
    if (n == 0) bad_byte(path, done, "the file became shorter while it was read");
    done += n;
  }
  bytes.hash = xxh3_128(bytes.begin(), bytes.size);
  return bytes;
}

// All members of a gzip file. zlib checks each member's CRC and length.
Bytes inflate_all(const Bytes& stored) {
  z_stream z{};
  if (inflateInit2(&z, 15 + 16) != Z_OK) throw Error(Code::kInternal, "zlib does not start");
  struct Ender {
    z_stream* z;
    ~Ender() { inflateEnd(z); }
  } ender{&z};
  // the last four bytes say the size (modulo 2^32); deflate expands by 1032 at most, so a lie is
  // cheap
  uint32_t promised = 0;
  if (stored.size >= 18) std::memcpy(&promised, stored.end() - 4, 4);
  size_t capacity = std::min<size_t>(promised, stored.size * 1032) + 64;
  Bytes out{stored.path, allocate(capacity), 0, stored.hash};
  size_t consumed = 0;
  constexpr size_t kMost = size_t{1} << 30;  // zlib counts in 32 bits
  for (;;) {
    if (out.size == capacity) {
      capacity *= 2;
      auto larger = allocate(capacity);
      std::memcpy(larger.get(), out.begin(), out.size);
      out.memory = std::move(larger);
    }
    z.next_in = stored.memory.get() + consumed;
    z.avail_in = std::min(stored.size - consumed, kMost);
    z.next_out = out.memory.get() + out.size;
    z.avail_out = std::min(capacity - out.size, kMost);
    const size_t in = z.avail_in, space = z.avail_out;
    int result = inflate(&z, Z_NO_FLUSH);
    consumed += in - z.avail_in;
    out.size += space - z.avail_out;
    if (result == Z_STREAM_END) {
      if (consumed == stored.size) return out;
      inflateReset(&z);
    } else if (result == Z_BUF_ERROR ||
               (result == Z_OK && consumed == stored.size && z.avail_out)) {
      bad_byte(stored.path, stored.size, "the gzip stream is cut short", "Fetch the file again.");
    } else if (result != Z_OK) {
      bad_byte(stored.path, consumed,
               fmt::format("the gzip stream is corrupt ({})", z.msg ? z.msg : "no message"),
               "Fetch the file again.");
    }
  }
}

}  // namespace

void bad_byte(const std::string& path, uint64_t byte, const std::string& what,
              const std::string& hint) {
  throw Error(Code::kData, what, fmt::format("{} at byte {}", path, byte), hint);
}

Bytes read_bytes(const std::string& path, const std::string& hint) {
  Bytes bytes = read_stored(path, hint);
  if (bytes.size >= 2 && bytes.memory[0] == 0x1f && bytes.memory[1] == 0x8b)
    return inflate_all(bytes);
  return bytes;
}

}  // namespace lehr::data
