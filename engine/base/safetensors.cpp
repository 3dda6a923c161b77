// The format is small, so the reader takes nothing for granted: a streaming parser that accepts
// this one shape of JSON and no other (no tree, so no deep nesting), then arithmetic with checked
// overflow.
#include "engine/base/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/what_is.h"

namespace lehr {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as in the reference implementation
constexpr const char* kAgain = "Copy or download it again.";

// of every dtype that the format has, those included that nothing of ours writes
uint64_t dtype_bits(const std::string& dtype) {
  static const std::map<std::string, uint64_t> others = {
      {"U16", 16},        {"U32", 32},    {"U64", 64},    {"C64", 64},
      {"F8_E4M3", 8},     {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
  const auto other = others.find(dtype);
  return other == others.end() ? 8 * dtype_bytes(dtype) : other->second;
}

struct Slice {
  std::string name, dtype;
  std::vector<uint64_t> shape, offsets;
  bool has_shape = false, has_offsets = false;
};

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"k": "v"}}
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Slice> slices;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool start_object(std::size_t) override {
    if (depth_ == 0 || (depth_ == 1 && !in_list_)) return ++depth_, true;
    return refuse("an object where none belongs");
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) {
      const Slice& slice = slices.back();
      if (slice.dtype.empty() || !slice.has_shape || !slice.has_offsets)
        return refuse("tensor '" + slice.name + "' lacks dtype, shape or data_offsets");
      if (slice.offsets.size() != 2)
        return refuse("tensor '" + slice.name + "': data_offsets are not two numbers");
    }
    if (depth_ == 1) in_metadata_ = false;
    return true;
  }
  bool key(std::string& key) override {
    if (depth_ == 1) {
      if (!names_.insert(key).second) return refuse("two entries named '" + key + "'");
      in_metadata_ = key == "__metadata__";
      if (!in_metadata_) slices.push_back({key, "", {}, {}, false, false});
    } else if (in_metadata_ && metadata.count(key)) {
      return refuse("two metadata entries named '" + key + "'");
    }
    key_ = key;
    return true;
  }
  bool string(std::string& value) override {
    if (depth_ == 2 && in_metadata_) return metadata[key_] = value, true;
    if (depth_ == 2 && !in_list_ && key_ == "dtype" && slices.back().dtype.empty()) {
      if (dtype_bits(value) == 0) return refuse("unknown dtype '" + value + "'");
      return slices.back().dtype = value, true;
    }
    return refuse("a string where none belongs");
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || in_list_) return refuse("a list where none belongs");
    bool is_shape = key_ == "shape";
    bool& seen = is_shape ? slices.back().has_shape : slices.back().has_offsets;
    if ((!is_shape && key_ != "data_offsets") || seen)
      return refuse("unexpected key '" + key_ + "'");
    return seen = in_list_ = true;
  }
  bool end_array() override { return in_list_ = false, true; }
  bool number_unsigned(uint64_t value) override {
    if (!in_list_) return refuse("a number where none belongs");
    auto& list = key_ == "shape" ? slices.back().shape : slices.back().offsets;
    if (list.size() >= 64) return refuse("more than 64 numbers in '" + key_ + "'");
    return list.push_back(value), true;
  }
  bool number_integer(int64_t) override { return refuse("a negative number"); }
  bool number_float(double, const std::string& text) override {
    return refuse("'" + text + "' where a whole number belongs");
  }
  bool null() override { return refuse("a null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool parse_error(std::size_t byte, const std::string&,
                   const nlohmann::json::exception&) override {
    return refuse(fmt::format("not JSON at byte {}", byte));
  }

 private:
  bool refuse(std::string why) {
    problem = std::move(why);
    return false;
  }
  int depth_ = 0;
  bool in_list_ = false, in_metadata_ = false;
  std::string key_;
  std::set<std::string> names_;
};

// shape x dtype in bytes; false when it does not fit 64 bits or is no whole number
bool bytes_of(const Slice& slice, uint64_t* bytes) {
  const uint64_t bits = dtype_bits(slice.dtype), unit = bits % 8 == 0 ? 1 : 8;  // parts of a byte
  *bytes = bits * unit / 8;
  for (uint64_t extent : slice.shape)
    if (extent > INT64_MAX || __builtin_mul_overflow(*bytes, extent, bytes)) return false;
  if (*bytes % unit != 0) return false;
  *bytes /= unit;
  return true;
}

}  // namespace

uint64_t dtype_bytes(const std::string& dtype) {
  static const std::map<std::string, uint64_t> sizes = {
      {"F64", 8},  {"I64", 8}, {"F32", 4}, {"I32", 4}, {"F16", 2},
      {"BF16", 2}, {"I16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  auto size = sizes.find(dtype);
  return size == sizes.end() ? 0 : size->second;
}

std::vector<TensorView> in_file_order(std::vector<TensorView> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) {
    return dtype_bytes(a.dtype) > dtype_bytes(b.dtype);
  });
  return tensors;
}

std::string safetensors_header(const std::vector<TensorView>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  std::set<std::string> names;
  for (const auto& tensor : tensors) {
    uint64_t bytes = dtype_bytes(tensor.dtype);
    for (int64_t extent : tensor.shape) bytes *= static_cast<uint64_t>(extent);
    if (dtype_bytes(tensor.dtype) == 0 || bytes != tensor.bytes || tensor.name == "__metadata__" ||
        !names.insert(tensor.name).second)
      throw Error(Code::kInternal, "a tensor of wrong size, dtype or name cannot be written",
                  tensor.name);
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string prefix(8, '\0');
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<char>(text.size() >> (8 * i));
  return prefix + text;
}

void write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  auto ordered = in_file_order(tensors);
  std::string header = safetensors_header(ordered, metadata);
  uint64_t total = header.size();
  for (const auto& tensor : ordered) total += tensor.bytes;
  FileWriter writer(path, total);
  writer.write(header.data(), header.size());
  for (const auto& tensor : ordered) writer.write(tensor.data, tensor.bytes);
  writer.commit();
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    throw Error(Code::kCheckpoint,
                errno == ENOENT ? "the file is missing"
                                : fmt::format("cannot open: {}", std::strerror(errno)),
                path);
  struct stat info {};
  bool regular = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  size_ = regular ? static_cast<uint64_t>(info.st_size) : 0;
  if (size_ >= 8) map_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  int error = errno;
  ::close(fd);
  if (size_ < 8)
    throw Error(Code::kCheckpoint, "is too short or no file: not safetensors", path, kAgain);
  if (map_ == MAP_FAILED)
    throw Error(Code::kCheckpoint, fmt::format("cannot map: {}", std::strerror(error)), path);
  try {
    parse();
  } catch (...) {
    ::munmap(map_, size_);
    throw;
  }
}

void SafetensorsFile::parse() {
  const std::string_view head(static_cast<const char*>(map_), std::min(size_, kHeadBytes));
  auto refuse = [&](const std::string& why) {
    if (const FileKind* kind = what_is(head))
      throw Error(Code::kCheckpoint, fmt::format("is {}, not safetensors", kind->name), path_,
                  kind->remedy);
    if (head.starts_with("<"))
      throw Error(Code::kCheckpoint, "is a page of the web, not safetensors", path_,
                  "Download the file itself.");
    throw Error(Code::kCheckpoint, "damaged or not safetensors: " + why, path_, kAgain);
  };
  const unsigned char* bytes = static_cast<const unsigned char*>(map_);
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | bytes[i];
  if (header_bytes > kMaxHeaderBytes)
    refuse(fmt::format("a header of {} bytes (limit {})", header_bytes, kMaxHeaderBytes));
  if (header_bytes > size_ - 8) refuse("the header reaches beyond the end of the file");

  HeaderParser parser;
  const char* text = reinterpret_cast<const char*>(bytes + 8);
  if (header_bytes == 0 || text[0] != '{') refuse("the header does not begin with '{'");
  if (std::memchr(text, 0, header_bytes)) refuse("a zero byte in the header");  // ends the parser
  if (!nlohmann::json::sax_parse(text, text + header_bytes, &parser)) refuse(parser.problem);
  metadata_ = std::move(parser.metadata);

  auto& slices = parser.slices;
  std::sort(slices.begin(), slices.end(),
            [](const Slice& a, const Slice& b) { return a.offsets < b.offsets; });
  uint64_t expected = 0, data_bytes = size_ - 8 - header_bytes;
  const unsigned char* data = bytes + 8 + header_bytes;
  for (const auto& slice : slices) {
    uint64_t begin = slice.offsets[0], end = slice.offsets[1], size = 0;
    if (begin != expected || end < begin)
      refuse(fmt::format("tensor '{}' leaves a gap or overlaps another one", slice.name));
    if (end > data_bytes)
      refuse(fmt::format("tensor '{}' reaches beyond the end of the file", slice.name));
    if (!bytes_of(slice, &size) || size != end - begin)
      refuse(fmt::format("tensor '{}': shape and dtype do not give its {} bytes", slice.name,
                         end - begin));
    index_[slice.name] = tensors_.size();
    tensors_.push_back(
        {slice.name, slice.dtype, {slice.shape.begin(), slice.shape.end()}, data + begin, size});
    expected = end;
  }
  if (expected != data_bytes) refuse(fmt::format("{} bytes too many", data_bytes - expected));
}

SafetensorsFile::~SafetensorsFile() { ::munmap(map_, size_); }

std::string SafetensorsFile::strip_wrappers() {
  std::string stripped;
  for (const std::string prefix : {"module.", "_orig_mod.", "module."}) {
    const bool all = std::all_of(tensors_.begin(), tensors_.end(),
                                 [&](const TensorView& t) { return t.name.starts_with(prefix); });
    if (!all || tensors_.empty()) continue;
    for (TensorView& tensor : tensors_) tensor.name.erase(0, prefix.size());
    stripped += prefix;
  }
  index_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
  return stripped;
}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace lehr
