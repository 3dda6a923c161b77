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
#include <vector>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/base/pulse.h"

namespace lehr::data {
namespace {

constexpr size_t kPiece = 64 << 20;  // of a read: a slow disk shows that it gets on

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

int open_file(const std::string& path, const std::string& hint, uint64_t* size) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const bool missing = errno == ENOENT;
    throw Error(Code::kData,
                missing ? "the file is missing" : fmt::format("cannot open: {}", strerror(errno)),
                path, missing && hint.empty() ? "Check the path." : hint);
  }
  struct stat status;
  const int problem = ::fstat(fd, &status) == 0 ? 0 : errno;
  if (problem == 0 && S_ISREG(status.st_mode)) {
    *size = static_cast<uint64_t>(status.st_size);
    return fd;
  }
  ::close(fd);
  if (problem) throw Error(Code::kData, fmt::format("cannot read: {}", strerror(problem)), path);
  throw Error(Code::kData, "is not a plain file", path);
}

size_t read_some(int fd, const std::string& path, uint64_t at, void* out, size_t size) {
  for (;;) {
    const ssize_t n = ::read(fd, out, std::min(size, kPiece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) bad_byte(path, at, fmt::format("cannot read: {}", strerror(errno)));
    if (n == 0) bad_byte(path, at, "the file became shorter while it was read");
    get_on();
    return static_cast<size_t>(n);
  }
}

Bytes read_stored(const std::string& path, const std::string& hint) {
  uint64_t size = 0;
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } file{open_file(path, hint, &size)};
  Bytes bytes{path, allocate(size), size, ""};
  for (size_t done = 0; done < bytes.size;)
    done += read_some(file.fd, path, done, bytes.memory.get() + done, bytes.size - done);
  bytes.hash = xxh3_128(bytes.begin(), bytes.size);
  return bytes;
}

[[noreturn]] void cut_short(const std::string& path, uint64_t byte) {
  bad_byte(path, byte, "the gzip stream is cut short", "Fetch the file again.");
}

[[noreturn]] void corrupt(const std::string& path, uint64_t byte, const z_stream& z) {
  bad_byte(path, byte, fmt::format("the gzip stream is corrupt ({})", z.msg ? z.msg : "no message"),
           "Fetch the file again.");
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
      cut_short(stored.path, stored.size);
    } else if (result != Z_OK) {
      corrupt(stored.path, consumed, z);
    }
  }
}

}  // namespace

void bad_byte(const std::string& path, uint64_t byte, const std::string& what,
              const std::string& hint) {
  throw Error(Code::kData, what, fmt::format("{} at byte {}", path, byte), hint);
}

struct ByteStream::Gzip {
  z_stream z{};
  std::vector<char> input = std::vector<char>(1 << 18);
  bool between = false;  // two members, or at the end
  Gzip() {
    if (inflateInit2(&z, 15 + 16) != Z_OK) throw Error(Code::kInternal, "zlib does not start");
  }
  ~Gzip() { inflateEnd(&z); }
};

ByteStream::ByteStream(const std::string& path, const std::string& hint) : path_(path) {
  fd_ = open_file(path, hint, &size_);
  unsigned char magic[2] = {};
  if (::pread(fd_, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b)
    gzip_ = std::make_unique<Gzip>();
}

ByteStream::~ByteStream() { ::close(fd_); }

size_t ByteStream::read_stored(char* out, size_t size) {
  size = std::min<uint64_t>(size, size_ - stored_);
  if (size == 0) return 0;
  const size_t n = read_some(fd_, path_, stored_, out, size);
  stored_ += n;
  return n;
}

size_t ByteStream::read(char* out, size_t size) {
  size_t done = 0;
  while (!gzip_ && done < size) {
    const size_t n = read_stored(out + done, size - done);
    if (n == 0) return done;
    done += n;
  }
  while (done < size) {
    z_stream& z = gzip_->z;
    if (z.avail_in == 0) {
      z.avail_in = static_cast<uInt>(read_stored(gzip_->input.data(), gzip_->input.size()));
      z.next_in = reinterpret_cast<Bytef*>(gzip_->input.data());
      if (z.avail_in == 0 && gzip_->between) return done;
      if (z.avail_in == 0) cut_short(path_, size_);
    }
    if (gzip_->between) inflateReset(&z);
    gzip_->between = false;
    const size_t most = std::min<size_t>(size - done, 1 << 30);  // zlib counts in 32 bits
    z.next_out = reinterpret_cast<Bytef*>(out + done);
    z.avail_out = static_cast<uInt>(most);
    const int result = inflate(&z, Z_NO_FLUSH);
    done += most - z.avail_out;
    if (result == Z_STREAM_END)
      gzip_->between = true;
    else if (result != Z_OK && result != Z_BUF_ERROR)
      corrupt(path_, stored_ - z.avail_in, z);
  }
  return done;
}

void ByteStream::skip(uint64_t bytes) {
  if (!gzip_) {
    stored_ = std::min(size_, stored_ + bytes);
    if (::lseek(fd_, static_cast<off_t>(stored_), SEEK_SET) < 0)
      bad_byte(path_, stored_, fmt::format("cannot read: {}", strerror(errno)));
    return;
  }
  std::vector<char> passed(std::min<uint64_t>(bytes, 1 << 20));
  for (size_t n = 1; bytes > 0 && n > 0; bytes -= n)
    n = read(passed.data(), std::min<uint64_t>(bytes, passed.size()));
}

Bytes read_bytes(const std::string& path, const std::string& hint) {
  Bytes bytes = read_stored(path, hint);
  if (bytes.size >= 2 && bytes.memory[0] == 0x1f && bytes.memory[1] == 0x8b)
    return inflate_all(bytes);
  return bytes;
}

}  // namespace lehr::data
