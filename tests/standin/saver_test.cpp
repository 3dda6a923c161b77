// A checkpoint from a device: by pinned memory, on a stream of its own, and nobody waits.
#include "engine/checkpoint/saver.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "engine/base/host_bytes.h"
#include "tests/base/scratch.h"
#include "tests/standin/chosen.h"  // first: it loads the device

namespace lehr::checkpoint {
namespace {

TEST(SaverOnADevice, SavesWhatWasThereBeforeTheUpdate) {
  Scratch scratch(in_memory());
  Saver saver(scratch.path(), {}, standin::kChosen.runtime);
  const at::Device device = standin::kChosen.device(0);
  // of three savings, the last larger than the memory of the others
  for (int64_t step : {1, 2, 3}) {
    const auto fresh = [&](double value) {
      return at::full({2, 3 * step, 4, 5}, value)
          .contiguous(at::MemoryFormat::ChannelsLast)
          .to(device);
    };
    at::Tensor weight = fresh(1), buffer = fresh(2), state = fresh(3);
    Content content;
    content.step = step;
    const standin::Counts before = standin::kChosen.counts(0);
    saver.take(content, {{"weight", weight}}, {{"buffer", buffer}}, {{"state", state}});
    buffer.fill_(-1);  // the next forward
    saver.finish_copy();
    weight.fill_(-1), state.fill_(-1);  // the update
    const standin::Counts counts = standin::kChosen.counts(0) - before;
    EXPECT_EQ(counts.out, standin::kChosen.is_gpu ? 0 : 3);
    EXPECT_EQ(counts.waits, 0);
    saver.wait();
    const auto loaded =
        newest(scratch.path(), [](const std::string& what) { ADD_FAILURE() << what; });
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->step, step);
    at::Tensor weight2 = fresh(0), buffer2 = fresh(0), state2 = fresh(0);
    restore(*loaded->shards.at("weights"), {{"weight", weight2}, {"buffer", buffer2}});
    restore(*loaded, "state", {{"state", state2}});
    EXPECT_TRUE(same_bytes(weight2, fresh(1)));
    EXPECT_TRUE(same_bytes(buffer2, fresh(2)));
    EXPECT_TRUE(same_bytes(state2, fresh(3)));
  }
}

TEST(SaverOnADevice, CommitsAtTheEndWhatIsThereNow) {
  Scratch scratch(in_memory());
  Saver saver(scratch.path(), {}, standin::kChosen.runtime);
  const at::Tensor weight = at::arange(6, at::kFloat).to(standin::kChosen.device(1));
  Content content;
  content.step = 7;
  saver.save_now(content, {{"weight", weight}}, {}, {{"state", weight + 1}});
  EXPECT_EQ(saver.committed_step(), 7);
  const auto loaded =
      newest(scratch.path(), [](const std::string& what) { ADD_FAILURE() << what; });
  at::Tensor read = at::zeros({6}).to(standin::kChosen.device(1));
  restore(*loaded->shards.at("weights"), {{"weight", read}});
  EXPECT_TRUE(same_bytes(read, weight));
}

// In pieces as on the CPU at once; 40 MB are three of them.
TEST(HostBytesOfADevice, CrossInPieces) {
  const at::Tensor large = at::arange(10 << 20, at::kInt).view({-1, 2, 4}).transpose(0, 1);
  const at::Tensor small = at::arange(7, at::kShort), none = at::empty({0});
  const auto joined = [](const NamedTensors& tensors) {
    std::string bytes;
    for_each_piece(tensors, standin::kChosen.runtime, [&](const void* data, uint64_t size) {
      bytes.append(static_cast<const char*>(data), size);
    });
    return bytes;
  };
  NamedTensors here, there;
  for (const auto& t : {small, large, none, small, large}) {
    here.push_back({"", t});
    there.push_back({"", t.to(standin::kChosen.device(0))});
  }
  there[3] = here[3];
  EXPECT_TRUE(joined(here) == joined(there));
}

}  // namespace
}  // namespace lehr::checkpoint
