#include "engine/data/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/data/bytes.h"

namespace lehr::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are written as memory is");

// the first 256 bytes of a shard, as TOKENS.md says
struct Header {
  char magic[8] = {'L', 'E', 'H', 'R', 'T', 'O', 'K', '\n'};
  uint32_t version = 1, token_bytes = 2;
  uint64_t count = 0, documents = 0, vocabulary = 0, text_bytes = 0;
  uint64_t begin_file = 0, begin_byte = 0, end_file = 0, end_byte = 0;
  char tokenizer[32] = {}, content[32] = {};
  char reserved[80] = {};
  char header[32] = {};  // XXH3-128 of all before it
};
static_assert(sizeof(Header) == 256 && offsetof(Header, header) == 224);

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

std::string hash_of(const Header& header) { return xxh3_128(&header, offsetof(Header, header)); }

std::string text_of(const char (&field)[32]) { return {field, sizeof field}; }

constexpr size_t kBufferBytes = 1 << 20;

const char* const kAgain =
    "Remove the file and run the same lehr tokenize again: it makes it anew.";

}  // namespace

TokenShardWriter::TokenShardWriter(std::string path, int64_t vocabulary)
    : path_(std::move(path)),
      temporary_(path_ + ".tmp-" + unique_id()),
      vocabulary_(vocabulary),
      token_bytes_(vocabulary <= 65536 ? 2 : 4),
      file_(std::make_unique<FileWriter>(temporary_.path())) {
  const Header empty;  // the true one is written last
  file_->write(&empty, sizeof empty);
}

void TokenShardWriter::append(const Tokens& ids) {
  const size_t before = buffer_.size();
  buffer_.resize(before + ids.size() * token_bytes_);
  if (token_bytes_ == 2)
    std::copy(ids.begin(), ids.end(), reinterpret_cast<uint16_t*>(buffer_.data() + before));
  else
    std::copy(ids.begin(), ids.end(), reinterpret_cast<uint32_t*>(buffer_.data() + before));
  count_ += static_cast<int64_t>(ids.size());
  if (buffer_.size() >= kBufferBytes) flush();
}

void TokenShardWriter::flush() {
  content_.update(buffer_.data(), buffer_.size());
  file_->write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void TokenShardWriter::finish(TokenShard& about) {
  if (documents_.empty()) documents_.assign(about.documents.begin(), about.documents.end());
  const uint64_t bytes = static_cast<uint64_t>(count_) * token_bytes_;
  buffer_.resize(buffer_.size() + padded(bytes) - bytes);
  const auto* table = reinterpret_cast<const char*>(documents_.data());
  buffer_.insert(buffer_.end(), table, table + documents_.size() * sizeof(int64_t));
  flush();
  about.path = path_;
  about.content = content_.digest();
  about.token_bytes = token_bytes_;
  about.count = count_;
  about.vocabulary = vocabulary_;
  Header header;
  header.token_bytes = static_cast<uint32_t>(token_bytes_);
  header.count = static_cast<uint64_t>(count_);
  header.documents = documents_.size();
  header.vocabulary = static_cast<uint64_t>(vocabulary_);
  header.text_bytes = about.text_bytes;
  header.begin_file = about.begin.file, header.begin_byte = about.begin.byte;
  header.end_file = about.end.file, header.end_byte = about.end.byte;
  std::memcpy(header.tokenizer, about.tokenizer.data(), 32);
  std::memcpy(header.content, about.content.data(), 32);
  std::memcpy(header.header, hash_of(header).data(), 32);
  file_->write_at(0, &header, sizeof header);
  file_->commit();
  temporary_.rename_durably(path_);
}

void write_token_shard(TokenShard& shard, const Tokens& ids, int64_t vocabulary) {
  TokenShardWriter writer(shard.path, vocabulary);
  writer.append(ids);
  writer.finish(shard);
}

TokenShard open_token_shard(const std::string& path, bool verify) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    throw Error(Code::kData,
                errno == ENOENT ? "the file is missing"
                                : fmt::format("cannot open: {}", std::strerror(errno)),
                path, errno == ENOENT ? "Check the path; lehr tokenize makes such files." : "");
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  struct stat status;
  if (::fstat(fd, &status) != 0)
    throw Error(Code::kData, fmt::format("cannot read: {}", std::strerror(errno)), path);
  const auto size = static_cast<uint64_t>(status.st_size);
  if (!S_ISREG(status.st_mode) || size < sizeof(Header))
    bad_byte(path, size, "too short for a token shard", kAgain);
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED)
    throw Error(Code::kData, fmt::format("cannot map: {}", std::strerror(errno)), path);
  std::shared_ptr<const void> mapping(
      mapped, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  Header header;
  std::memcpy(&header, mapped, sizeof header);
  if (std::memcmp(header.magic, Header{}.magic, sizeof header.magic) != 0)
    bad_byte(path, 0, "not a token shard", "lehr tokenize makes them.");
  if (header.version != 1)
    bad_byte(path, 8, fmt::format("version {}, this Lehr reads 1", header.version),
             "It was written by a newer Lehr.");
  if (text_of(header.header) != hash_of(header))
    bad_byte(path, 0, "the header does not verify: it is damaged", kAgain);
  if ((header.token_bytes != 2 && header.token_bytes != 4) || header.count > size ||
      header.documents > size)
    bad_byte(path, 12, "the header makes no sense", kAgain);
  const uint64_t bytes = header.count * header.token_bytes;
  const uint64_t whole = sizeof header + padded(bytes) + header.documents * sizeof(int64_t);
  if (size != whole)
    bad_byte(path, std::min(size, whole),
             fmt::format("the file has {} bytes, the header says {}", size, whole), kAgain);
  const char* data = static_cast<const char*>(mapped) + sizeof header;
  if (verify && xxh3_128(data, size - sizeof header) != text_of(header.content))
    bad_byte(path, sizeof header, "the ids do not verify: the file is damaged", kAgain);

  TokenShard shard;
  shard.path = path;
  shard.token_bytes = static_cast<int>(header.token_bytes);
  shard.count = static_cast<int64_t>(header.count);
  shard.vocabulary = static_cast<int64_t>(header.vocabulary);
  shard.text_bytes = header.text_bytes;
  shard.tokenizer = text_of(header.tokenizer);
  shard.content = text_of(header.content);
  shard.begin = {header.begin_file, header.begin_byte};
  shard.end = {header.end_file, header.end_byte};
  shard.documents = {reinterpret_cast<const int64_t*>(data + padded(bytes)), header.documents};
  shard.memory = std::shared_ptr<const void>(mapping, data);
  return shard;
}

namespace {

using Json = nlohmann::json;

// how lehr tokenize read its texts, as its plan says
std::optional<TextLayout> layout_of(const std::string& folder) try {
  const std::string path = join_path(folder, "tokenize.json");
  if (!file_exists(path)) return std::nullopt;
  const Json plan = Json::parse(read_file(path));
  const auto separator = plan.at("document_separator").get<std::string>();
  return TextLayout{separator, !separator.empty() || plan.at("inputs").size() > 1};
} catch (const Json::exception&) {
  return std::nullopt;
}

}  // namespace

TokenFolder read_token_folder(const std::string& path) {
  const std::string index = join_path(path, kTokensIndex);
  if (!file_exists(index))
    throw Error(Code::kData, "there is no tokens.json in it: it is not complete", path,
                "Run its lehr tokenize again: it continues where it was cut.");
  TokenFolder folder;
  try {
    const Json json = Json::parse(read_file(index));
    if (json.at("version") != 1)
      throw Error(Code::kData, fmt::format("version {}", json.at("version").dump()), index,
                  "It was written by a newer Lehr.");
    for (const auto& name : json.at("train"))
      folder.train.push_back(join_path(path, name.get<std::string>()));
    for (const auto& name : json.at("validation"))
      folder.validation.push_back(join_path(path, name.get<std::string>()));
    folder.counts = json.value("counts", std::vector<int64_t>());
  } catch (const Json::exception& error) {
    throw Error(Code::kData, "not an index of token shards", index, error.what());
  }
  folder.tokenizer = read_file(join_path(path, "tokenizer.json"));
  folder.layout = layout_of(path);
  return folder;
}

TokenFolder token_folder(const std::string& path) {
  if (!path.ends_with(".tokens")) return read_token_folder(path);
  TokenFolder folder;
  folder.train = {path};
  const size_t slash = path.rfind('/');
  const std::string parent = slash == path.npos ? "." : path.substr(0, slash + 1);
  const std::string beside = join_path(parent, "tokenizer.json");
  if (!file_exists(beside)) return folder;
  const std::string tokenizer = read_file(beside);
  if (xxh3_128(tokenizer.data(), tokenizer.size()) != open_token_shard(path).tokenizer)
    return folder;
  folder.tokenizer = tokenizer;
  folder.layout = layout_of(parent);
  return folder;
}

bool is_token_shards(const std::string& path) {
  return path.ends_with(".tokens") || file_exists(join_path(path, kTokensIndex));
}

}  // namespace lehr::data
