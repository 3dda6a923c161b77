// The pickles of a model.pt, read opcode by opcode as LibTorch will read them, but with nothing in
// them believed: LibTorch takes extents of tensors, kinds of values and the depth of its stack as
// they are written.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace lehr::artefact {

// How a tensor lies in its storage, in elements.
struct Geometry {
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0;
  int64_t elements = 0;  // of the storage
};
// Why not every element of such a tensor lies in its storage; empty when all do. A tensor may not
// have more elements than its storage either, so that no count of it overflows.
std::string misfit(const Geometry& geometry);

// Bytes of the members that the storages of a pickle lie in, by their names ("0", "1", ...).
using StorageBytes = std::map<std::string, uint64_t, std::less<>>;

// Throws Error{kCheckpoint}, with `where` for the message, on anything that LibTorch's pickler does
// not write for a module of tensors, numbers, strings, List[str] and Dict[str, int], on a storage
// of another size than its member, and on a tensor that reaches out of its storage.
void scan_pickle(std::string_view bytes, const StorageBytes& storages, const std::string& where);

}  // namespace lehr::artefact
