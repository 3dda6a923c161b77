#include "tests/step/toy.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cstring>
#include <numeric>

#include "engine/base/random.h"
#include "models/batch_norm.h"
#include "models/products.h"

namespace lehr::step::toy {
namespace {

struct Linear : models::Module {
  Linear(int64_t in, int64_t out, uint64_t seed) {
    double bound = 1 / std::sqrt(static_cast<double>(in));
    weight = add_parameter("weight", uniform({out, in}, seed, -bound, bound));
    bias = add_parameter("bias", uniform({out}, seed + 1, -bound, bound));
  }
  at::Tensor weight, bias;
};

struct BatchNorm : models::Module {
  explicit BatchNorm(int64_t width) {
    weight = add_parameter("weight", at::ones({width}));
    bias = add_parameter("bias", at::zeros({width}));
    mean = add_buffer("running_mean", at::zeros({width}));
    var = add_buffer("running_var", at::ones({width}));
  }
  at::Tensor forward(const at::Tensor& x) {
    return models::batch_norm(x, weight, bias, mean, var, is_training());
  }
  at::Tensor weight, bias, mean, var;
};

class Mlp : public models::Model {
 public:
  Mlp(const Shape& shape, uint64_t seed, bool relu) : dropout_(shape.dropout), relu_(relu) {
    const auto& w = shape.widths;
    for (size_t i = 0; i + 1 < w.size(); ++i) {
      std::string n = std::to_string(i + 1);
      layers_.push_back(
          add_module("fc" + n, std::make_shared<Linear>(w[i], w[i + 1], seed + 10 * i)));
      if (shape.batch_norm && i + 2 < w.size())
        norms_.push_back(add_module("bn" + n, std::make_shared<BatchNorm>(w[i + 1])));
    }
    if (!shape.unused) return;
    add_parameter("never", at::ones({2, w.back()}));
    sometimes_ = add_parameter("sometimes", at::ones({1, w.back()}));
  }
  at::Tensor forward(const at::Tensor& input) override {
    at::Tensor x = input;
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = models::linear(x, layers_[i]->weight, layers_[i]->bias);
      if (i + 1 == layers_.size()) break;
      if (i < norms_.size()) x = norms_[i]->forward(x);
      x = relu_ ? at::relu(x) : at::tanh(x);
      if (dropout_ > 0) x = models::dropout(x, dropout_, static_cast<int64_t>(i), is_training());
    }
    if (!sometimes_.defined()) return x;
    const at::Tensor chosen = (input.select(1, 0) > 0.9).to(at::kFloat).unsqueeze(1);
    if (chosen.sum().item<double>() > 0) x = x + chosen * sometimes_;
    return x;
  }

 private:
  std::vector<std::shared_ptr<Linear>> layers_;
  std::vector<std::shared_ptr<BatchNorm>> norms_;
  at::Tensor sometimes_;
  double dropout_;
  bool relu_;
};

}  // namespace

std::shared_ptr<models::Model> mlp(const Shape& shape, uint64_t seed, bool relu) {
  at::set_num_threads(1);  // a second thread costs such sizes more than it gives
  return std::make_shared<Mlp>(shape, seed, relu);
}

std::unique_ptr<dist::Pending> Alone::begin_reduce_scatter(at::Tensor all, at::Tensor mine) {
  mine.copy_(all.narrow(0, 0, mine.numel()));
  return dist::done();
}

std::unique_ptr<dist::Pending> Alone::begin_all_gather(at::Tensor, at::Tensor all) {
  all.zero_();
  return dist::done();
}

std::vector<at::Tensor> Alone::gather(const at::Tensor& tensor) {
  return std::vector<at::Tensor>(static_cast<size_t>(size_), tensor);
}

at::Tensor uniform(std::vector<int64_t> sizes, uint64_t seed, double low, double high) {
  at::Tensor t = at::empty(sizes, at::kFloat);
  Random random(seed, Stream::kTest, 0);
  float* data = t.data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i)
    data[i] = static_cast<float>(low + (high - low) * random.uniform());
  return t;
}

Batch classes(int64_t size, int64_t features, int64_t classes, uint64_t seed) {
  Batch batch;
  batch.inputs = uniform({size, features}, seed);
  batch.targets = (uniform({size}, seed + 1, 0, 1) * static_cast<double>(classes)).to(at::kLong);
  batch.samples.resize(static_cast<size_t>(size));
  std::iota(batch.samples.begin(), batch.samples.end(), 100);
  return batch;
}

Batch rows(const Batch& batch, int64_t begin, int64_t end) {
  Batch part;
  part.inputs = batch.inputs.slice(0, begin, end).clone();
  part.targets = batch.targets.slice(0, begin, end).clone();
  part.samples.assign(batch.samples.begin() + begin, batch.samples.begin() + end);
  part.epoch = batch.epoch;
  return part;
}

std::vector<Batch> split(const Batch& batch, const std::vector<int64_t>& sizes) {
  std::vector<Batch> parts;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    parts.push_back(rows(batch, begin, begin + size));
    begin += size;
  }
  return parts;
}

NamedTensors copy(const NamedTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, t] : tensors) result.push_back({name, t.detach().clone()});
  return result;
}

bool same_bits(const NamedTensors& a, const NamedTensors& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    at::Tensor x = a[i].tensor.detach().contiguous(), y = b[i].tensor.detach().contiguous();
    if (a[i].name != b[i].name || x.sizes() != y.sizes() || x.scalar_type() != y.scalar_type() ||
        std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) != 0)
      return false;
  }
  return true;
}

double largest_difference(const NamedTensors& a, const NamedTensors& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double gap = (a[i].tensor - b[i].tensor).abs().max().item<double>();
    largest = std::isnan(gap) ? INFINITY : std::max(largest, gap);
  }
  return largest;
}

NamedTensors everything(const models::Model& model) {
  NamedTensors all = model.parameters();
  for (auto& b : model.buffers()) all.push_back(b);
  return all;
}

}  // namespace lehr::step::toy
