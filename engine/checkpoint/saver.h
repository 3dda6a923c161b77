// Saves in the background: take() returns at once, the copy of the tensors runs beside the next
// forward and backward, and finish_copy() (from Step::before_update) waits for it before a weight
// moves; of a device, it is the device that waits. The trade: one more copy of weights and state in
// memory, kept between saves (and pinned, for a device).
#pragma once

#include <memory>
#include <string>

#include "engine/base/device.h"
#include "engine/base/named_tensor.h"
#include "engine/checkpoint/checkpoint.h"

namespace lehr::checkpoint {

class Saver {
 public:
  // `device`: whose tensors come; nullptr: the CPU's.
  Saver(std::string folder, Retention retention, DeviceRuntime* device = nullptr);
  ~Saver();  // waits for the save in flight, though not for other processes' parts
  // `weights` and `state` are copied in the background, `volatile_tensors` (batch-norm buffers,
  // part of the weights shard) at once. Waits for an earlier save first; if that failed, throws its
  // Error and takes nothing: the failure is then forgotten, and the caller may go on and take
  // again. Of `content`, all but shards is used; a part that is not the first gives its `state`
  // alone, and is done when that is written. Any device, any strides.
  void take(Content content, const NamedTensors& weights, const NamedTensors& volatile_tensors,
            const NamedTensors& state);
  // The same, committed when it returns, from the tensors' own memory where that is contiguous and
  // on the CPU: for the end of training, when a snapshot would be the peak of its memory. A
  // device's come by the snapshot.
  void save_now(Content content, const NamedTensors& weights, const NamedTensors& volatile_tensors,
                const NamedTensors& state);
  // Optional, before the first step: lays out the snapshot's memory in the background, so that the
  // first take is as quick as the later ones.
  void prepare(const NamedTensors& weights, const NamedTensors& volatile_tensors,
               const NamedTensors& state);
  void finish_copy();  // at most the rest of a memory copy
  void wait();         // until the save in flight is committed; throws its Error
  // Newest step committed by this object, -1 for none; may be asked from any thread.
  int64_t committed_step() const;
  double blocked_s() const;  // time that take, finish_copy held up the caller, in total

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Overwrites each tensor, or those rows of it that `rows` names, in place from whichever processes
// wrote them. Throws as below.
void restore(const Loaded& loaded, const std::string& shard, const NamedTensors& into,
             const std::map<std::string, Rows>& rows = {});
// Overwrites each tensor in place from the view of the same name. Throws Error{kCheckpoint} for a
// missing name or another shape or dtype, and then has changed nothing.
void restore(const SafetensorsFile& file, const NamedTensors& into);

}  // namespace lehr::checkpoint
