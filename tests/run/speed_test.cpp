#include "engine/run/speed.h"

#include <gtest/gtest.h>

namespace lehr::run {
namespace {

TEST(PeakFlops, AreThoseOfTheDataSheets) {
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", "bf16-mixed"), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", "fp16-mixed"), 756e12);
  EXPECT_EQ(peak_flops("NVIDIA A100-SXM4-80GB", "fp32"), 19.5e12);
  EXPECT_EQ(peak_flops("AMD EPYC", "fp32"), 0);
}

}  // namespace
}  // namespace lehr::run
