#include "engine/run/speed.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace lehr::run {
namespace {

TEST(PeakFlops, AreThoseOfTheDataSheets) {
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", "bf16-mixed"), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", "fp16-mixed"), 756e12);
  EXPECT_EQ(peak_flops("NVIDIA A100-SXM4-80GB", "fp32"), 19.5e12);
  EXPECT_EQ(peak_flops("NVIDIA A100-SXM4-80GB", "fp32", /*tf32=*/true), 156e12);
  EXPECT_EQ(peak_flops("AMD EPYC", "fp32"), 0);
}

// float32 is float32 unless a recipe says otherwise, and the next run of a process says anew.
TEST(Numerics, AreSettledByEachRun) {
  const auto& context = at::globalContext();
  for (bool deterministic : {true, false, true})
    for (bool tf32 : {false, true, false}) {
      TrainingFields fields;
      fields.threads = 1, fields.deterministic = deterministic, fields.tf32 = tf32;
      settle_numerics(fields);
      EXPECT_EQ(context.deterministicAlgorithms(), deterministic);
      EXPECT_EQ(context.deterministicCuDNN(), deterministic);
      EXPECT_FALSE(context.benchmarkCuDNN());
      EXPECT_EQ(context.allowTF32CuBLAS(), tf32);
      for (auto op : {at::Float32Op::CONV, at::Float32Op::RNN})
        EXPECT_EQ(context.allowTF32CuDNN(op), tf32);
    }
}

}  // namespace
}  // namespace lehr::run
