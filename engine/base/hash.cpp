#include "engine/base/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/error.h"
#include "engine/base/pulse.h"

namespace lehr {
namespace {

constexpr size_t kPiece = 64 << 20;

std::string hex(const unsigned char* bytes, size_t n) {
  static const char* digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * n);
  for (size_t i = 0; i < n; ++i) {
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

std::string hex(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return hex(canonical.digest, sizeof canonical.digest);
}

// Memory may be a mapped file, which comes as slowly as its disk gives it.
template <class Piece>
void in_pieces(const void* data, size_t bytes, Piece piece) {
  for (size_t done = 0; done < bytes; done += kPiece) {
    piece(static_cast<const char*>(data) + done, std::min(kPiece, bytes - done));
    get_on();
  }
}

template <class Chunk>
void read_chunks(const std::string& path, Chunk chunk) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(Code::kData, std::string("cannot open: ") + std::strerror(errno), path);
  std::vector<char> buffer(1 << 20);
  for (;;) {
    ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      ::close(fd);
      throw Error(Code::kData, std::string("cannot read: ") + std::strerror(error), path);
    }
    if (n == 0) break;
    chunk(buffer.data(), static_cast<size_t>(n));
  }
  ::close(fd);
}

struct Sha256 {
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context{EVP_MD_CTX_new(), EVP_MD_CTX_free};
  Sha256() { EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr); }
  void update(const void* data, size_t bytes) {
    in_pieces(data, bytes,
              [this](const char* piece, size_t n) { EVP_DigestUpdate(context.get(), piece, n); });
  }
  std::string digest() {
    unsigned char out[32];
    unsigned int n = 0;
    EVP_DigestFinal_ex(context.get(), out, &n);
    return hex(out, n);
  }
};

}  // namespace

std::string xxh3_128(const void* data, size_t bytes) {
  if (bytes <= kPiece) return hex(XXH3_128bits(data, bytes));
  Xxh3 hash;
  hash.update(data, bytes);
  return hash.digest();
}

std::string sha256(std::string_view text) {
  Sha256 sha;
  sha.update(text.data(), text.size());
  return sha.digest();
}

Xxh3::Xxh3() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}
Xxh3::~Xxh3() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
void Xxh3::update(const void* data, size_t bytes) {
  in_pieces(data, bytes, [this](const char* piece, size_t n) {
    XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), piece, n);
  });
}
std::string Xxh3::digest() const {
  return hex(XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_)));
}

std::string xxh3_128_of_file(const std::string& path) {
  Xxh3 hash;
  read_chunks(path, [&](const char* data, size_t n) { hash.update(data, n); });
  return hash.digest();
}

std::string sha256_of_file(const std::string& path) {
  Sha256 sha;
  read_chunks(path, [&](const char* data, size_t n) { sha.update(data, n); });
  return sha.digest();
}

}  // namespace lehr
