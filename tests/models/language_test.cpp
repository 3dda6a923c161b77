// What is peculiar to language models: recomputed activations, kernels, caches, document masks.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "engine/base/error.h"
#include "models/attention.h"
#include "models/ops.h"
#include "tests/models/toy.h"

namespace lehr::models {
namespace {

using namespace testing;

const ModelEntry& entry_of(const std::string& name) {
  for (const auto& entry : registry())
    if (entry.name == name) return entry;
  throw std::out_of_range(name);
}

std::shared_ptr<LanguageModel> language(const ModelEntry& entry, const std::string& recompute) {
  FixedFields fields = entry.toy_fields;
  fields.set("activation_checkpoint.mode", recompute);
  ModelContext context = entry.toy_context;
  context.seed = 1;
  context.options = at::TensorOptions().dtype(at::kFloat);
  return std::dynamic_pointer_cast<LanguageModel>(entry.make(fields, context));
}

class Language : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, Language, ::testing::Values("gpt2", "llama"));

// Products in bfloat16, as a step under bf16-mixed has them.
class Bfloat16 {
 public:
  explicit Bfloat16(bool on) { at::autocast::set_autocast_enabled(at::kCPU, on); }
  ~Bfloat16() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
  Bfloat16(const Bfloat16&) = delete;
  Bfloat16& operator=(const Bfloat16&) = delete;
};

std::vector<at::Tensor> gradients(const std::string& name, const std::string& recompute,
                                  Kernels kernels, bool low = false) {
  const ModelEntry& entry = entry_of(name);
  auto model = language(entry, recompute);
  at::Tensor loss;
  {
    const Keyed keyed(5, 0, 4);
    const KernelScope scope(kernels);
    const Bfloat16 precision(low);
    loss = at::cross_entropy_loss(flat(model->forward(toy_input(entry, 4))), toy_targets(entry, 4));
  }
  loss.backward();  // outside these scopes, as on the thread of a GPU's backward
  std::vector<at::Tensor> all{loss.detach()};
  for (const auto& [parameter, tensor] : model->parameters()) all.push_back(tensor.grad().clone());
  return all;
}

TEST_P(Language, HasTheSameGradientBitsWhenActivationsAreComputedAgain) {
  for (Kernels kernels : {Kernels::kAten, Kernels::kCustom})
    for (bool low : {false, true}) {
      const auto kept = gradients(GetParam(), "none", kernels, low);
      for (const char* mode : {"full", "selective"}) {
        const auto again = gradients(GetParam(), mode, kernels, low);
        ASSERT_EQ(kept.size(), again.size());
        for (size_t i = 0; i < kept.size(); ++i)
          EXPECT_TRUE(kept[i].equal(again[i])) << mode << " " << i << (low ? " bfloat16" : "");
      }
    }
}

TEST_P(Language, HasTheSameGradientsOnLehrsKernels) {
  const auto aten = gradients(GetParam(), "none", Kernels::kAten);
  const auto ours = gradients(GetParam(), "none", Kernels::kCustom);
  for (size_t i = 0; i < aten.size(); ++i)
    EXPECT_LT(largest_difference(aten[i], ours[i]),
              2e-5 * aten[i].abs().max().item<double>() + 1e-8)
        << i;
}

TEST_P(Language, ReportsTheLargestDifferenceOfEachKernelUnderCheck) {
  gradients(GetParam(), "none", Kernels::kCheck);
  const auto differences = kernel_differences();
  for (const char* op : {"causal_attention", "embedding"}) {
    ASSERT_TRUE(differences.count(op)) << op;
    EXPECT_LT(differences.at(op), 1e-5) << op;
  }
}

TEST_P(Language, SeesTheSameThroughACacheAsAllAtOnce) {
  const ModelEntry& entry = entry_of(GetParam());
  auto model = language(entry, "none");
  model->train(false);
  at::NoGradGuard no_grad;
  const at::Tensor ids = toy_input(entry, 2);
  const at::Tensor whole = model->hidden({ids, {}, nullptr});
  KeyValueCache cache;
  std::vector<at::Tensor> parts{model->hidden({ids.slice(1, 0, 3), {}, &cache})};
  for (int64_t t = 3; t < ids.size(1); ++t)
    parts.push_back(model->hidden({ids.slice(1, t, t + 1), {}, &cache}));
  EXPECT_LT(largest_difference(whole, at::cat(parts, 1)), 1e-5);
  EXPECT_EQ(cache.length, ids.size(1));
}

TEST_P(Language, DoesNotLookAcrossDocuments) {
  const ModelEntry& entry = entry_of(GetParam());
  auto model = language(entry, "none");
  model->train(false);
  at::NoGradGuard no_grad;
  at::Tensor ids = toy_input(entry, 1), segments = at::zeros_like(ids);
  segments.slice(1, 4).fill_(1);
  const at::Tensor before = model->hidden({ids, segments, nullptr}).slice(1, 4).clone();
  ids.slice(1, 0, 4).fill_(1);  // another first document
  EXPECT_LT(largest_difference(before, model->hidden({ids, segments, nullptr}).slice(1, 4)), 1e-6);
  EXPECT_GT(largest_difference(before, model->hidden({ids, {}, nullptr}).slice(1, 4)), 1e-4);
}

TEST_P(Language, IsNotMovedByTokensThatFollow) {
  const ModelEntry& entry = entry_of(GetParam());
  auto model = language(entry, "none");
  model->train(false);
  at::NoGradGuard no_grad;
  for (Kernels kernels : {Kernels::kAten, Kernels::kCustom}) {
    const KernelScope scope(kernels);
    at::Tensor ids = toy_input(entry, 2);
    const at::Tensor before = model->hidden({ids, {}, nullptr}).slice(1, 0, 5).clone();
    const at::Tensor one = at::zeros_like(ids);  // one document, whose mask is another path
    const at::Tensor masked = model->hidden({ids, one, nullptr}).slice(1, 0, 5).clone();
    ids.slice(1, 5).fill_(2);
    EXPECT_TRUE(before.equal(model->hidden({ids, {}, nullptr}).slice(1, 0, 5)));
    EXPECT_TRUE(masked.equal(model->hidden({ids, one, nullptr}).slice(1, 0, 5)));
  }
}

// Whatever is added to the residual stream starts smaller the more there is of it, and is dropped
// by a mask of its own.
TEST(Gpt2, AddsSmallBranchesEachUnderItsOwnMask) {
  const ModelEntry& entry = entry_of("gpt2");
  auto model = language(entry, "none");
  for (const auto& [name, tensor] : model->parameters()) {
    if (!name.ends_with(".weight") || tensor.dim() != 2) continue;
    const double expected = name.ends_with("c_proj.weight") ? 0.02 / std::sqrt(2.0 * 2) : 0.02;
    EXPECT_NEAR(tensor.std().item<double>() / expected, 1, 0.2) << name;
  }
  // one layer's branches are 1 everywhere: what survives of both is 0, one or two of them
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model->parameters()) {
    at::Tensor all = tensor;
    all.fill_(name.find("ln_") != std::string::npos && name.ends_with(".weight") ? 1 : 0);
    if (name.find("h.0.") != std::string::npos && name.ends_with("c_proj.bias")) all.fill_(1);
  }
  const Keyed keyed(5, 0, 4);
  const at::Tensor hidden = model->hidden({toy_input(entry, 4), {}, nullptr});
  int64_t most = 0;
  for (const at::Tensor& sample : hidden.flatten(0, 1).unbind())
    most = std::max(most, std::get<0>(at::_unique(sample)).numel());
  EXPECT_EQ(most, 3);
}

TEST(KernelsOf, AutoTakesWhatWasMeasuredToBeFasterOnTheDevice) {
  EXPECT_EQ(kernels_of("auto", at::kCPU), Kernels::kCustom);
  EXPECT_EQ(kernels_of("auto", at::kCUDA), Kernels::kAten);
  for (auto device : {at::kCPU, at::kCUDA}) {
    EXPECT_EQ(kernels_of("custom", device), Kernels::kCustom);
    EXPECT_EQ(kernels_of("aten", device), Kernels::kAten);
    EXPECT_EQ(kernels_of("check", device), Kernels::kCheck);
  }
  EXPECT_THROW(kernels_of("mine", at::kCPU), Error);
}

TEST(AttentionBackend, IsNamed) {
  const at::Tensor q = at::randn({2, 4, 8, 16}), kv = at::randn({2, 2, 8, 16});
  EXPECT_EQ(attention_backend(q, q, q, {}, true), "flash");
  EXPECT_EQ(attention_backend(q, kv, kv, {}, true), "flash");
  // no fused kernel has a gradient of the mask
  const at::Tensor mask = at::zeros({2, 1, 8, 8}).requires_grad_();
  EXPECT_EQ(attention_backend(q, q, q, mask, false), "math");
}

}  // namespace
}  // namespace lehr::models
