// NCCL's group of ranks, for the runtime that hands it to engine/dist.
#pragma once

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace lehr::cuda {

// See DeviceRuntime::make_nccl. Throws Error{kRanks} for a version of NCCL that must not be used,
// and for settings of its watchdog in the environment that contradict Lehr's.
c10d::Backend* make_nccl(c10d::Store& store, int rank, int size, double timeout_s);

// The versions whose abort may crash the process: 2.28.3 to 2.28.8 (code as in NCCL_VERSION_CODE).
bool may_crash_on_abort(int version);

}  // namespace lehr::cuda
