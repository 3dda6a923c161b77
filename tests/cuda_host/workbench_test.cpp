// The workbench tested on itself: every planted bug is caught by the build that promises it, at its
// line, and right code is left alone.
#include <fstream>
#include <string>

#include "tests/cuda_host/block_sum.h"
#include "tests/cuda_host/host_test.h"
#include "tests/cuda_host/planted.h"

namespace {

using cuda_host::Buffer;
using cuda_host::Schedule;
using lehr::kernels::BlockSum;
using lehr::kernels::Planted;
using lehr::kernels::planted_cuda;

#ifdef CUDA_HOST_RACE
constexpr bool kRaceBuild = true;
#else
constexpr bool kRaceBuild = false;
#endif
constexpr int kThreads = 96;

// "planted.cu:41", the line marked `bug: name`
std::string place(const std::string& name) {
  std::ifstream file(LEHR_SOURCE_DIR "/tests/cuda_host/planted.cu");
  std::string line;
  for (int number = 1; std::getline(file, line); ++number)
    if (line.find("bug: " + name) != std::string::npos)
      return "planted.cu:" + std::to_string(number);
  ADD_FAILURE() << "planted.cu marks no bug " << name;
  return "";
}

struct Outcome {
  std::string findings;  // one a line
  std::vector<float> output;
  cudaError_t error;
};

Outcome run(Planted bug, Schedule::Order order = Schedule::Order::kForward) {
  cuda_host::take_findings();
  cuda_host::set_schedule({order, 1});
  Buffer<float> output(2 * kThreads);
  Outcome outcome;
  outcome.error = planted_cuda(bug, output.data(), kThreads);
  for (const auto& finding : cuda_host::take_findings()) outcome.findings += finding + "\n";
  outcome.output = output.values();
  return outcome;
}

void expect_found(const Outcome& outcome, const std::string& words, const std::string& where) {
  EXPECT_NE(outcome.findings.find(words), std::string::npos) << outcome.findings;
  EXPECT_NE(outcome.findings.find(where), std::string::npos) << where << "\n" << outcome.findings;
  EXPECT_EQ(outcome.error, cudaErrorLaunchFailure);
}

// Found by the race build at its line. The other build lets it pass under every schedule, with the
// same output, which is what makes the race build necessary.
void expect_race_build_alone_finds(Planted bug, const std::string& words, const std::string& name) {
  if (kRaceBuild) return expect_found(run(bug), words, place(name));
  cuda_host::run_under_every_schedule([&] {
    Buffer<float> output(2 * kThreads);
    EXPECT_EQ(planted_cuda(bug, output.data(), kThreads), cudaSuccess);
    return output.values();
  });
}

// Found by the race build at its line; in the other one nothing shows but the output.
void expect_race_build_finds(Planted bug, const std::string& words, const std::string& name) {
  const Outcome outcome = run(bug);
  if (kRaceBuild) return expect_found(outcome, words, place(name));
  EXPECT_EQ(outcome.findings, "");
  EXPECT_EQ(outcome.error, cudaSuccess);
}

TEST(Workbench, LeavesRightKernelsAlone) {
  cuda_host::run_under_every_schedule([] {
    Buffer<float> output(2 * kThreads);
    EXPECT_EQ(planted_cuda(Planted::kNone, output.data(), kThreads), cudaSuccess);
    return output.values();
  });
}

TEST(Workbench, FindsAMissingBarrier) {
  const Outcome forward = run(Planted::kMissingBarrier);
  const Outcome reverse = run(Planted::kMissingBarrier, Schedule::Order::kReverse);
  EXPECT_NE(std::memcmp(forward.output.data(), reverse.output.data(),
                        forward.output.size() * sizeof(float)),
            0);
  if (kRaceBuild) {
    expect_found(forward, "uninitialised shared memory", place("MissingBarrier"));
    expect_found(reverse, "race in shared memory", place("MissingBarrier"));
  } else {
    EXPECT_EQ(forward.findings + reverse.findings, "");  // the order alone gives it away
  }
}

TEST(Workbench, FindsAnOffByOneBound) {
  if (kRaceBuild)
    expect_found(run(Planted::kOffByOne), "race in global memory", place("OffByOne"));
  else
    EXPECT_DEATH(run(Planted::kOffByOne), "heap-buffer-overflow");
}

TEST(Workbench, FindsAShuffleFromOutsideItsMask) {
  const Outcome outcome = run(Planted::kWrongMask);
  expect_found(outcome, "lane 12 reads lane 28, which is not in mask 0x0000ffff",
               place("WrongMask"));
}

TEST(Workbench, FindsAMisalignedVectorLoad) {
  EXPECT_DEATH(run(Planted::kMisalignedLoad), "misaligned address");
}

TEST(Workbench, FindsBlocksThatWriteTheSamePacks) {
  const Outcome outcome = run(Planted::kOverlappingPacks);
  if (kRaceBuild)
    expect_found(outcome, "race in global memory: thread 0 of block 1", "pack.h");
  else
    EXPECT_EQ(outcome.findings, "");
}

TEST(Workbench, FindsUninitialisedSharedMemory) {
  expect_race_build_finds(Planted::kUninitialisedShared, "uninitialised shared memory",
                          "UninitialisedShared");
  expect_race_build_finds(Planted::kUninitialisedDynamic, "uninitialised shared memory",
                          "UninitialisedDynamic");
  EXPECT_NE(run(Planted::kUninitialisedDynamic).output[0], 1);  // NaN, as it was filled
}

TEST(Workbench, FindsAMissingTrailingBarrier) {
  expect_race_build_alone_finds(Planted::kMissingTrailingBarrier, "race in shared memory",
                                "MissingTrailingBarrier");
}

TEST(Workbench, FindsAShuffleUsedAsAFence) {
  expect_race_build_alone_finds(Planted::kShuffleAsFence, "shared memory", "ShuffleAsFence");
}

TEST(Workbench, FindsADivergentBarrier) {
  const Outcome outcome = run(Planted::kDivergentBarrier);
  expect_found(outcome, "threads 0 wait at __syncthreads", place("DivergentBarrier"));
  expect_found(outcome, "threads 32-95 have exited", place("DivergentBarrier"));
  expect_found(outcome, "threads 1-31 wait for the lanes of mask 0xffffffff", "planted.cu");
}

TEST(Workbench, FindsAnExitBeforeABarrier) {
  expect_found(run(Planted::kEarlyExit), "threads 32-63 have exited before it", place("EarlyExit"));
}

TEST(Workbench, FindsOneBarrierAtTwoPlaces) {
  expect_found(run(Planted::kTwoBarriers), "one barrier, two places", place("TwoBarriers"));
}

TEST(Workbench, FindsMissingLanes) {
  const Outcome outcome = run(Planted::kMissingLanes);
  expect_found(outcome, "has exited without coming", place("MissingLanes"));
  const Outcome late = run(Planted::kMissingLanes, Schedule::Order::kReverse);
  expect_found(late, "names lanes 16-31, which have exited", place("MissingLanes"));
}

TEST(Workbench, FindsALaneThatItsMaskDoesNotName) {
  expect_found(run(Planted::kUnnamedLane),
               "lane 31 calls with mask 0x7fffffff, which does not name", place("UnnamedLane"));
}

#ifndef CUDA_HOST_RACE  // which sees reads and writes of what there is
TEST(Workbench, FindsAReadBeyondTheEnd) {
  EXPECT_DEATH(run(Planted::kReadBeyondEnd), "heap-buffer-overflow");
}

TEST(Workbench, FindsOverrunsOfSharedMemory) {
  EXPECT_DEATH(run(Planted::kDynamicSharedOverrun), "heap-buffer-overflow");
  EXPECT_DEATH(run(Planted::kStaticSharedOverrun), "global-buffer-overflow|insufficient space");
}
#endif

TEST(Workbench, FindsTwoWritersOfOneByte) {
  expect_race_build_alone_finds(Planted::kSharedByte, "race in shared memory", "SharedByte");
}

TEST(Workbench, FindsAPlainReadBesideAnAtomic) {
  expect_race_build_finds(Planted::kPlainBesideAtomic, "race in shared memory",
                          "PlainBesideAtomic");
}

TEST(Workbench, FindsBlocksThatReadEachOther) {
  expect_race_build_finds(Planted::kReadsAnotherBlock, "race in global memory",
                          "ReadsAnotherBlock");
}

TEST(Workbench, RefusesLaunchesThatADeviceRefuses) {
  Buffer<float> output(1);
  EXPECT_EQ(planted_cuda(Planted::kOffByOne, output.data(), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(planted_cuda(Planted::kOffByOne, output.data(), 1025), cudaErrorInvalidConfiguration);
  // 200,000 bytes of dynamic shared memory
  BlockSum args{output.data(), output.data(), nullptr, 1, 50000};
  EXPECT_EQ(lehr::kernels::block_sum_cuda(args, 32, nullptr), cudaErrorInvalidValue);
}

TEST(Workbench, GoesOnAfterAStandstill) {
  run(Planted::kDivergentBarrier);
  EXPECT_EQ(run(Planted::kNone).findings, "");
}

TEST(Workbench, SumsRowsWithShufflesBarriersAndAtomics) {
  for (const auto& [rows, columns] : {std::pair{0, 5}, {1, 1}, {3, 31}, {40, 97}, {17, 300}}) {
    std::vector<float> input(rows * columns);
    for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 11);
    int positive = 0;
    std::vector<float> expected(rows);
    for (int r = 0; r < rows; ++r) {
      bool all = true;
      for (int c = 0; c < columns; ++c) {
        expected[r] += input[r * columns + c];  // small integers: any order is exact
        all = all && input[r * columns + c] > 0;
      }
      positive += all;
    }
    for (int threads : {32, 256}) {
      const auto sums = cuda_host::run_under_every_schedule([&] {
        Buffer<float> in(input), out(rows);
        Buffer<int> count(std::vector<int>{0});
        EXPECT_EQ(lehr::kernels::block_sum_cuda(
                      {in.data(), out.data(), count.data(), rows, columns}, threads, nullptr),
                  cudaSuccess);
        EXPECT_EQ(count.values()[0], positive);
        return out.values();
      });
      EXPECT_EQ(sums, expected);
    }
  }
}

}  // namespace
