// Milliseconds of forward, backward and update of the small CNN on random images already in memory,
// on one line of JSON; beside tests/peers/cnn_tuned.py. Steps are timed one by one and the median
// is printed, because the machine may be shared. --bf16, --threads N, --steps N, --batch N, --model
// NAME.
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "models/model.h"

namespace lehr::models {
namespace {

using Clock = std::chrono::steady_clock;

double ms(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

int run(int argc, char** argv) {
  int64_t steps = 100, batch = 128;
  bool bf16 = false;
  std::string name = "cnn";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--bf16") bf16 = true;
    if (word == "--threads" && more) at::set_num_threads(std::stoi(argv[++i]));
    if (word == "--steps" && more) steps = std::stoll(argv[++i]);
    if (word == "--batch" && more) batch = std::stoll(argv[++i]);
    if (word == "--model" && more) name = argv[++i];
  }
  ModelContext context;
  context.channels = 1, context.height = 28, context.width = 28, context.outputs = 10;
  context.options = at::TensorOptions().dtype(at::kFloat);
  auto model = make_model(FixedFields({{"model.name", name}, {"model.stem", std::string("cifar")}}),
                          context);

  std::vector<at::Tensor> parameters, first, second, counts;
  const at::Tensor count = at::zeros({});
  for (const auto& [parameter, tensor] : model->parameters()) {
    parameters.push_back(tensor);
    first.push_back(at::zeros_like(tensor, tensor.options().requires_grad(false)));
    second.push_back(at::zeros_like(first.back()));
    counts.push_back(count);
  }
  const at::Tensor x = at::randn({batch, 1, 28, 28}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = at::randint(0, 10, {batch}, at::kLong);

  std::vector<double> forward, backward, update, whole;
  for (int64_t step = -10; step < steps; ++step) {
    const auto begin = Clock::now();
    at::Tensor outputs;
    if (bf16) {
      at::autocast::set_autocast_enabled(at::kCPU, true);
      at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
      outputs = model->forward(x);
      at::autocast::clear_cache();
      at::autocast::set_autocast_enabled(at::kCPU, false);
      outputs = outputs.to(at::kFloat);
    } else {
      outputs = model->forward(x);
    }
    const at::Tensor loss = at::cross_entropy_loss(outputs, y);
    const auto middle = Clock::now();
    loss.backward();
    const auto end = Clock::now();
    {
      at::NoGradGuard no_grad;
      count.add_(1);
      std::vector<at::Tensor> gradients;
      for (const auto& p : parameters) gradients.push_back(p.grad());
      at::_fused_adamw_(parameters, gradients, first, second, {}, counts, 1e-3, 0.9, 0.999, 0.01,
                        1e-8, false, false);
      for (auto& p : parameters) p.mutable_grad().reset();
    }
    const auto done = Clock::now();
    if (step < 0) continue;
    forward.push_back(ms(middle - begin)), backward.push_back(ms(end - middle));
    update.push_back(ms(done - end)), whole.push_back(ms(done - begin));
  }
  const double step_ms = median(whole);
  const nlohmann::json line = {{"images_per_s", 1000 * static_cast<double>(batch) / step_ms},
                               {"step_ms", step_ms},
                               {"forward_ms", median(forward)},
                               {"backward_ms", median(backward)},
                               {"update_ms", median(update)},
                               {"precision", bf16 ? "bf16-mixed" : "fp32"},
                               {"threads", at::get_num_threads()}};
  std::puts(line.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace lehr::models

int main(int argc, char** argv) { return lehr::models::run(argc, argv); }
