// GPT-2 (Radford et al. 2019): learned positions, layer norm before attention and feed-forward, a
// head tied to the embedding. Parameters have Hugging Face's names and layouts (a linear layer's
// weight is [in, out]), so that weights are exchanged without conversion. Attention weights are
// not dropped out, only what is added to the residual stream and the embedding.
#include <ATen/ATen.h>

#include <cmath>

#include "models/attention.h"
#include "models/entry.h"
#include "models/ops.h"
#include "models/products.h"
#include "models/recompute.h"
#include "models/scope.h"

namespace lehr::models {
namespace {

struct Gpt2Fields {
  int64_t layers = 12, heads = 12, width = 768, mlp_width = 0, max_positions = 0;
  int64_t pad_vocabulary_to = 1;
  double dropout = 0, layer_norm_eps = 1e-5;
  static Section section();
};

Section Gpt2Fields::section() {
  using F = Gpt2Fields;
  Declare<F> d("model", "");
  d.field("layers", &F::layers, "Transformer blocks.")
      .range(1, 1000)
      .when("name", {"gpt2"})
      .synonyms({"n_layer", "n_layers", "num_layers", "num_hidden_layers"});
  d.field("heads", &F::heads, "Attention heads; they divide the width.")
      .range(1, 1000)
      .when("name", {"gpt2"})
      .synonyms({"n_head", "n_heads", "num_heads", "num_attention_heads"});
  d.field("width", &F::width, "Size of the hidden states.")
      .range(1, 1 << 20)
      .when("name", {"gpt2"})
      .synonyms({"n_embd", "d_model", "embed_dim", "hidden_size", "dim"});
  d.field("mlp_width", &F::mlp_width, "Width of the feed-forward layer; 0: four times the width.")
      .range(0, 1 << 22)
      .when("name", {"gpt2"})
      .synonyms({"n_inner", "ffn_dim"});
  d.field("max_positions", &F::max_positions,
          "Longest context that the position embedding holds; 0: data.context.")
      .range(0, 1 << 24)
      .unit("tokens")
      .when("name", {"gpt2"})
      .synonyms({"n_positions", "n_ctx", "block_size", "max_position_embeddings"});
  d.field("pad_vocabulary_to", &F::pad_vocabulary_to,
          "The embedding gets as many rows as the next multiple of this; 64 or 128 is faster on a "
          "GPU. Rows that are no token are never predicted.")
      .range(1, 4096)
      .when("name", {"gpt2"})
      .synonyms({"vocab_size_multiple", "make_vocab_size_divisible_by"});
  d.field("dropout", &F::dropout,
          "Share of the embedding and of each block's additions set to zero in training.")
      .range(0, 0.99)
      .when("name", {"gpt2"})
      .synonyms({"resid_pdrop", "embd_pdrop"});
  d.field("layer_norm_eps", &F::layer_norm_eps, "Added to the variance in layer norms.")
      .above(0)
      .when("name", {"gpt2"})
      .synonyms({"layer_norm_epsilon"});
  return d.section();
}

class Norm : public Module {
 public:
  Norm(const Scope& scope, int64_t width, double eps) : eps_(eps) {
    weight_ = add_parameter("weight", scope.filled({width}, 1));
    bias_ = add_parameter("bias", scope.filled({width}, 0));
  }
  // (norm of the sum, the sum)
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& branch) const {
    return add_layer_norm(x, branch, weight_, bias_, eps_);
  }

 private:
  at::Tensor weight_, bias_;
  double eps_;
};

// A linear layer with weight [in, out].
class Projection : public Module {
 public:
  Projection(const Scope& scope, int64_t in, int64_t out, double deviation) {
    weight_ = add_parameter("weight", scope.normal("weight", {in, out}, deviation));
    bias_ = add_parameter("bias", scope.filled({out}, 0));
  }
  at::Tensor forward(const at::Tensor& x) const { return models::linear(x, weight_.t(), bias_); }
  at::Tensor weight() const { return weight_.t(); }  // [out, in]
  const at::Tensor& bias() const { return bias_; }

 private:
  at::Tensor weight_, bias_;
};

class Attention : public Module {
 public:
  Attention(const Scope& scope, const Gpt2Fields& f, double out_deviation)
      : shape_{f.heads, f.heads, f.width / f.heads} {
    c_attn_ = add<Projection>(scope, "c_attn", f.width, 3 * f.width, 0.02);
    c_proj_ = add<Projection>(scope, "c_proj", f.width, f.width, out_deviation);
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask, KeyValueCache* cache,
                     size_t layer) const {
    return c_proj_->forward(attention(c_attn_->forward(x), shape_, mask, cache, layer));
  }

 private:
  AttentionShape shape_;
  std::shared_ptr<Projection> c_attn_, c_proj_;
};

class FeedForward : public Module {
 public:
  FeedForward(const Scope& scope, int64_t width, int64_t inner, double out_deviation) {
    c_fc_ = add<Projection>(scope, "c_fc", width, inner, 0.02);
    c_proj_ = add<Projection>(scope, "c_proj", inner, width, out_deviation);
  }
  at::Tensor forward(const at::Tensor& x) const {
    return linear_gelu_linear(x, c_fc_->weight(), c_fc_->bias(), c_proj_->weight(),
                              c_proj_->bias());
  }

 private:
  std::shared_ptr<Projection> c_fc_, c_proj_;
};

class Block : public Module {
 public:
  Block(const Scope& scope, const Gpt2Fields& f, int64_t layer, std::string recompute)
      : layer_(layer), dropout_(f.dropout), recompute_(std::move(recompute)) {
    // what is added to the residual stream starts smaller, so that its sum does not grow with depth
    const double out_deviation = 0.02 / std::sqrt(2.0 * static_cast<double>(f.layers));
    ln_1_ = add<Norm>(scope, "ln_1", f.width, f.layer_norm_eps);
    attn_ = add<Attention>(scope, "attn", f, out_deviation);
    ln_2_ = add<Norm>(scope, "ln_2", f.width, f.layer_norm_eps);
    mlp_ = add<FeedForward>(scope, "mlp", f.width, f.mlp_width ? f.mlp_width : 4 * f.width,
                            out_deviation);
  }

  // The residual stream is x + branch, which the next norm adds up; returns the two anew.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& branch,
                                            const at::Tensor& mask, KeyValueCache* cache) const {
    const auto whole = [this, cache](const Tensors& in) -> Tensors {
      auto [normed, sum] = ln_1_->forward(in[0], in[1]);
      at::Tensor attended =
          attn_->forward(normed, in[2], cache, static_cast<size_t>(layer_));  // [B, T, D]
      attended = dropout(attended, dropout_, 2 * layer_ + 1, is_training());
      return recomputed(recompute_ != "selective", {sum, attended}, half());
    };
    const Tensors out = recomputed(recompute_ != "full", {x, branch, mask}, whole);
    return {out[0], out[1]};
  }

 private:
  std::function<Tensors(const Tensors&)> half() const {
    return [this](const Tensors& in) -> Tensors {
      auto [normed, sum] = ln_2_->forward(in[0], in[1]);
      return {sum, dropout(mlp_->forward(normed), dropout_, 2 * layer_ + 2, is_training())};
    };
  }
  int64_t layer_;
  double dropout_;
  std::string recompute_;
  std::shared_ptr<Norm> ln_1_, ln_2_;
  std::shared_ptr<Attention> attn_;
  std::shared_ptr<FeedForward> mlp_;
};

class Table : public Module {
 public:
  Table(const Scope& scope, int64_t rows, int64_t width, double deviation)
      : weight(add_parameter("weight", scope.normal("weight", {rows, width}, deviation))) {}
  const at::Tensor weight;
};

class Blocks : public Module {
 public:
  Blocks(const Scope& scope, const Gpt2Fields& f, const std::string& recompute) {
    for (int64_t i = 0; i < f.layers; ++i)
      all.push_back(add<Block>(scope, std::to_string(i), f, i, recompute));
  }
  std::vector<std::shared_ptr<Block>> all;
};

class Transformer : public Module {
 public:
  Transformer(const Scope& scope, const Gpt2Fields& f, int64_t rows, int64_t positions,
              const std::string& recompute)
      : dropout_(f.dropout) {
    wte = add<Table>(scope, "wte", rows, f.width, 0.02);
    wpe = add<Table>(scope, "wpe", positions, f.width, 0.02);
    h_ = add<Blocks>(scope, "h", f, recompute);
    ln_f_ = add<Norm>(scope, "ln_f", f.width, f.layer_norm_eps);
  }

  at::Tensor forward(const LanguageModel::Input& input) const {
    const int64_t before = input.cache ? input.cache->length : 0;
    const bool is_plain = before == 0 && kernels_in_use() != Kernels::kAten;
    // a kernel takes the first rows as they lie; a trace must not know how many there are
    const at::Tensor positions =
        is_plain ? wpe->weight
                 : at::embedding(wpe->weight, positions_of(input.ids, before));  // [T, D]
    at::Tensor x = embedding(wte->weight, positions, input.ids), branch;
    x = dropout(x, dropout_, 0, is_training());
    const at::Tensor mask = attention_mask(input.segments);
    for (const auto& block : h_->all)
      std::tie(x, branch) = block->forward(x, branch, mask, input.cache);
    if (input.cache) input.cache->length += input.ids.size(1);
    return ln_f_->forward(x, branch).first;
  }

  std::shared_ptr<Table> wte, wpe;

 private:
  double dropout_;
  std::shared_ptr<Blocks> h_;
  std::shared_ptr<Norm> ln_f_;
};

class Gpt2 : public LanguageModel {
 public:
  Gpt2(const Gpt2Fields& f, const RecomputeFields& recompute, const ModelContext& c)
      : vocabulary_(c.vocabulary), longest_(f.max_positions ? f.max_positions : c.context) {
    if (f.width % f.heads != 0)
      throw field_error("heads",
                        fmt::format("{} heads do not divide a width of {}", f.heads, f.width),
                        "choose a divisor of model.width");
    if (longest_ < c.context)
      throw field_error(
          "max_positions",
          fmt::format("a context of {} tokens is longer than {} positions", c.context, longest_),
          "raise model.max_positions or shorten data.context");
    const int64_t multiple = f.pad_vocabulary_to;
    const int64_t rows = (vocabulary_ + multiple - 1) / multiple * multiple;
    transformer_ = add<Transformer>(Scope(c.options, c.seed), "transformer", f, rows, longest_,
                                    recompute.mode);
  }

  at::Tensor hidden(const Input& input) override { return transformer_->forward(input); }
  at::Tensor head() const override { return transformer_->wte->weight; }
  int64_t vocabulary() const override { return vocabulary_; }
  int64_t longest() const override { return longest_; }

 private:
  int64_t vocabulary_, longest_;
  std::shared_ptr<Transformer> transformer_;
};

std::shared_ptr<Model> make(const FieldSource& fields, const ModelContext& c) {
  return std::make_shared<Gpt2>(fields.get<Gpt2Fields>(), fields.get<RecomputeFields>(), c);
}

}  // namespace

ModelEntry gpt2_model() {
  return {"gpt2",
          "a GPT-2 transformer",
          false,
          false,
          true,
          Gpt2Fields::section,
          make,
          FixedFields({{"model.layers", int64_t{2}},
                       {"model.heads", int64_t{2}},
                       {"model.width", int64_t{16}},
                       {"model.dropout", 0.1}}),
          toy_text(13, 8)};
}

}  // namespace lehr::models
