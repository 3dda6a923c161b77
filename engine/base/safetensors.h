// The safetensors format (8-byte little-endian header length, JSON header, raw bytes) without
// LibTorch: writing in one pass, reading by memory map with every length checked.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace lehr {

// One tensor as plain memory: `dtype` in safetensors' words (F64 F32 F16 BF16 I64 I32 I16 I8 U8
// BOOL).
struct TensorView {
  std::string name, dtype;
  std::vector<int64_t> shape;
  const void* data = nullptr;
  uint64_t bytes = 0;
};

uint64_t dtype_bytes(const std::string& dtype);  // 0 for one that is not written

// Wider dtypes first, else as given: so laid out, every tensor is aligned to its dtype, which other
// readers need.
std::vector<TensorView> in_file_order(std::vector<TensorView> tensors);
// The header (length prefix included, padded with spaces to a multiple of 8) for `tensors` laid out
// in the given order without gaps. `metadata` becomes __metadata__.
std::string safetensors_header(const std::vector<TensorView>& tensors,
                               const std::map<std::string, std::string>& metadata = {});
// In file order, fsynced; `path` must not exist. Its name is durable after sync_folder.
void write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// A mapped file. Throws Error{kCheckpoint} on anything that does not add up: header over 100 MB or
// beyond the file, not JSON, unknown dtype, shape x dtype != bytes, overlaps, gaps, duplicate
// names, trailing bytes; a file of another format is named (what_is.h). The views point into the
// map, live as long as this object, and may be unaligned; those that others wrote may have dtypes
// beyond the words above (F8_E4M3, U16, ...). Nobody may truncate the file meanwhile (SIGBUS).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  const std::vector<TensorView>& tensors() const { return tensors_; }  // in file order
  const TensorView* find(const std::string& name) const;               // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Takes off what PyTorch's wrappers put before every name (`module.` of data parallelism,
  // `_orig_mod.` of torch.compile). Returns what was taken off: "" unless all names have it.
  std::string strip_wrappers();

 private:
  void parse();

  std::string path_;
  void* map_ = nullptr;
  uint64_t size_ = 0;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace lehr
