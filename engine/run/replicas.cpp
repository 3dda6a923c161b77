#include "engine/run/replicas.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/base/host_bytes.h"

namespace lehr::run {

void require_same_replicas(dist::World& world, const NamedTensors& tensors, int64_t step,
                           DeviceRuntime* device) {
  if (world.size() == 1) return;
  Xxh3 hash;
  for_each_piece(tensors, device,
                 [&](const void* data, uint64_t bytes) { hash.update(data, bytes); });
  std::map<std::string, std::vector<size_t>> ranks_of;
  const auto all = world.gather_text(hash.digest());
  for (size_t r = 0; r < all.size(); ++r) ranks_of[all[r]].push_back(r);
  if (ranks_of.size() == 1) return;
  const auto most = std::max_element(
      ranks_of.begin(), ranks_of.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  std::vector<size_t> odd;
  for (size_t r = 0; r < all.size(); ++r)
    if (all[r] != most->first) odd.push_back(r);
  const bool majority = 2 * most->second.size() > all.size();
  throw Error(
      Code::kRanks,
      majority ? fmt::format("after step {} the weights of rank {} differ from the other ranks'",
                             step, fmt::join(odd, ", "))
               : fmt::format("after step {} the weights differ between ranks, and most of them do "
                             "not agree, so nothing says whose are right",
                             step),
      "",
      "the memory of a machine may be faulty; the same command goes on from the newest checkpoint");
}

}  // namespace lehr::run
