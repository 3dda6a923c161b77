// Llama (Touvron et al., arXiv 2302.13971; Llama 3, arXiv 2407.21783): RMS norm, rotary positions,
// grouped-query attention, SwiGLU, no biases. Parameters have Hugging Face's names, but q, k and v
// are one matrix (qkv_proj), and so are gate and up (gate_up_proj): fewer and larger products.
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

constexpr double kDeviation = 0.02;

struct LlamaFields {
  int64_t layers = 16, heads = 32, kv_heads = 0, head_size = 0, width = 2048, mlp_width = 8192;
  int64_t max_positions = 0, pad_vocabulary_to = 1;
  double rms_norm_eps = 1e-5, rope_theta = 500000;
  double rope_factor = 1, rope_low_freq_factor = 1, rope_high_freq_factor = 4;
  int64_t rope_original_positions = 8192;
  bool tied = true;
  static Section section();
};

Section LlamaFields::section() {
  using F = LlamaFields;
  Declare<F> d("model", "");
  d.field("layers", &F::layers, "Transformer blocks.")
      .range(1, 1000)
      .when("name", {"llama"})
      .synonyms({"n_layer", "n_layers", "num_layers", "num_hidden_layers"});
  d.field("heads", &F::heads, "Heads of the queries.")
      .range(1, 1000)
      .when("name", {"llama"})
      .synonyms({"n_head", "n_heads", "num_heads", "num_attention_heads"});
  d.field("kv_heads", &F::kv_heads,
          "Heads of keys and values, each shared by heads / kv_heads heads of queries (grouped-"
          "query attention); 0: as many as heads.")
      .range(0, 1000)
      .when("name", {"llama"})
      .synonyms({"n_kv_heads", "num_kv_heads", "num_key_value_heads"});
  d.field("head_size", &F::head_size, "Numbers per head; 0: width / heads.")
      .range(0, 4096)
      .when("name", {"llama"})
      .synonyms({"head_dim"});
  d.field("width", &F::width, "Size of the hidden states.")
      .range(1, 1 << 20)
      .when("name", {"llama"})
      .synonyms({"n_embd", "d_model", "embed_dim", "hidden_size", "dim"});
  d.field("mlp_width", &F::mlp_width, "Width of the feed-forward layer.")
      .range(1, 1 << 22)
      .when("name", {"llama"})
      .synonyms({"intermediate_size", "intermediate_dim", "ffn_dim"});
  d.field("max_positions", &F::max_positions,
          "Longest context that the model takes; 0: data.context.")
      .range(0, 1 << 24)
      .unit("tokens")
      .when("name", {"llama"})
      .synonyms({"n_positions", "block_size", "max_position_embeddings"});
  d.field("pad_vocabulary_to", &F::pad_vocabulary_to,
          "The embedding gets as many rows as the next multiple of this; 64 or 128 is faster on a "
          "GPU. Rows that are no token are never predicted.")
      .range(1, 4096)
      .when("name", {"llama"})
      .synonyms({"vocab_size_multiple", "make_vocab_size_divisible_by"});
  d.field("rms_norm_eps", &F::rms_norm_eps, "Added to the mean square in RMS norms.")
      .above(0)
      .when("name", {"llama"})
      .synonyms({"norm_eps"});
  d.field("rope_theta", &F::rope_theta,
          "Base of the rotary embedding's wavelengths (10000 in Llama 2, 500000 in Llama 3).")
      .above(0)
      .when("name", {"llama"})
      .synonyms({"rope_base"});
  d.field("rope_scaling.factor", &F::rope_factor,
          "By how much Llama 3.1's scaling stretches long wavelengths; 1: no scaling.")
      .at_least(1)
      .when("name", {"llama"});
  d.field("rope_scaling.low_freq_factor", &F::rope_low_freq_factor,
          "Wavelengths above original_positions / this are stretched by the whole factor.")
      .above(0)
      .when("name", {"llama"});
  d.field("rope_scaling.high_freq_factor", &F::rope_high_freq_factor,
          "Wavelengths below original_positions / this stay as they are.")
      .above(0)
      .when("name", {"llama"});
  d.field("rope_scaling.original_positions", &F::rope_original_positions,
          "Context for which the unscaled wavelengths were trained.")
      .at_least(1)
      .unit("tokens")
      .when("name", {"llama"})
      .synonyms({"original_max_position_embeddings"});
  d.field("tied", &F::tied, "The head is the embedding, instead of a matrix of its own.")
      .when("name", {"llama"})
      .synonyms({"tie_word_embeddings", "tie_weights"});
  return d.section();
}

// cos | sin of position times frequency, float32 [positions, head_size].
at::Tensor rope_table(const LlamaFields& f, int64_t head_size, int64_t positions,
                      const at::TensorOptions& options) {
  const at::TensorOptions table_options = options.dtype(at::kFloat);
  if (options.device().is_meta()) return at::empty({positions, head_size}, table_options);
  at::Tensor table = at::empty({positions, head_size}, at::kFloat);
  float* values = table.mutable_data_ptr<float>();
  const int64_t half = head_size / 2;
  const double original = static_cast<double>(f.rope_original_positions);
  for (int64_t i = 0; i < half; ++i) {
    // in float32, as the weights of published models were trained with
    float frequency =
        1 / static_cast<float>(std::pow(
                f.rope_theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_size)));
    if (f.rope_factor != 1) {
      const double wavelength = 2 * M_PI / frequency;
      const double share = (original / wavelength - f.rope_low_freq_factor) /
                           (f.rope_high_freq_factor - f.rope_low_freq_factor);
      const double kept = std::clamp(share, 0.0, 1.0);
      frequency = static_cast<float>((1 - kept) * frequency / f.rope_factor + kept * frequency);
    }
    for (int64_t t = 0; t < positions; ++t) {
      const float angle = static_cast<float>(t) * frequency;
      values[t * head_size + i] = std::cos(angle);
      values[t * head_size + half + i] = std::sin(angle);
    }
  }
  return table.to(options.device());
}

class Norm : public Module {
 public:
  Norm(const Scope& scope, int64_t width, double eps) : eps_(eps) {
    weight_ = add_parameter("weight", scope.filled({width}, 1));
  }
  // (norm of the sum, the sum)
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& branch) const {
    return add_rms_norm(x, branch, weight_, eps_);
  }

 private:
  at::Tensor weight_;
  double eps_;
};

// A matrix [out, in] without bias.
class Matrix : public Module {
 public:
  Matrix(const Scope& scope, int64_t in, int64_t out)
      : weight(add_parameter("weight", scope.normal("weight", {out, in}, kDeviation))) {}
  at::Tensor forward(const at::Tensor& x) const { return models::linear(x, weight); }
  const at::Tensor weight;
};

class Attention : public Module {
 public:
  Attention(const Scope& scope, int64_t width, const AttentionShape& shape) : shape_(shape) {
    qkv_proj_ = add<Matrix>(scope, "qkv_proj", width, shape.packed());
    o_proj_ = add<Matrix>(scope, "o_proj", shape.heads * shape.head_size, width);
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& cos_sin, const at::Tensor& mask,
                     KeyValueCache* cache, size_t layer) const {
    const at::Tensor qkv =
        rope(qkv_proj_->forward(x), cos_sin, shape_.heads, shape_.kv_heads, shape_.head_size);
    return o_proj_->forward(attention(qkv, shape_, mask, cache, layer));
  }

 private:
  AttentionShape shape_;
  std::shared_ptr<Matrix> qkv_proj_, o_proj_;
};

class FeedForward : public Module {
 public:
  FeedForward(const Scope& scope, int64_t width, int64_t inner) {
    gate_up_proj_ = add<Matrix>(scope, "gate_up_proj", width, 2 * inner);
    down_proj_ = add<Matrix>(scope, "down_proj", inner, width);
  }
  at::Tensor forward(const at::Tensor& x) const {
    return down_proj_->forward(swiglu(gate_up_proj_->forward(x)));
  }

 private:
  std::shared_ptr<Matrix> gate_up_proj_, down_proj_;
};

class Layer : public Module {
 public:
  Layer(const Scope& scope, const LlamaFields& f, const AttentionShape& shape, size_t layer,
        std::string recompute)
      : layer_(layer), recompute_(std::move(recompute)) {
    input_layernorm_ = add<Norm>(scope, "input_layernorm", f.width, f.rms_norm_eps);
    self_attn_ = add<Attention>(scope, "self_attn", f.width, shape);
    post_attention_layernorm_ =
        add<Norm>(scope, "post_attention_layernorm", f.width, f.rms_norm_eps);
    mlp_ = add<FeedForward>(scope, "mlp", f.width, f.mlp_width);
  }

  // The residual stream is x + branch, which the next norm adds up; returns the two anew.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& branch,
                                            const at::Tensor& cos_sin, const at::Tensor& mask,
                                            KeyValueCache* cache) const {
    const auto whole = [this, cache](const Tensors& in) -> Tensors {
      auto [normed, sum] = input_layernorm_->forward(in[0], in[1]);
      const at::Tensor attended =
          self_attn_->forward(normed, in[2], in[3], cache, layer_);  // [B, T, D]
      return recomputed(recompute_ != "selective", {sum, attended}, half());
    };
    const Tensors out = recomputed(recompute_ != "full", {x, branch, cos_sin, mask}, whole);
    return {out[0], out[1]};
  }

 private:
  std::function<Tensors(const Tensors&)> half() const {
    return [this](const Tensors& in) -> Tensors {
      auto [normed, sum] = post_attention_layernorm_->forward(in[0], in[1]);
      return {sum, mlp_->forward(normed)};
    };
  }
  size_t layer_;
  std::string recompute_;
  std::shared_ptr<Norm> input_layernorm_, post_attention_layernorm_;
  std::shared_ptr<Attention> self_attn_;
  std::shared_ptr<FeedForward> mlp_;
};

class Table : public Module {
 public:
  Table(const Scope& scope, int64_t rows, int64_t width)
      : weight(add_parameter("weight", scope.normal("weight", {rows, width}, kDeviation))) {}
  const at::Tensor weight;
};

class Layers : public Module {
 public:
  Layers(const Scope& scope, const LlamaFields& f, const AttentionShape& shape,
         const std::string& recompute) {
    for (int64_t i = 0; i < f.layers; ++i)
      all.push_back(
          add<Layer>(scope, std::to_string(i), f, shape, static_cast<size_t>(i), recompute));
  }
  std::vector<std::shared_ptr<Layer>> all;
};

class Body : public Module {
 public:
  Body(const Scope& scope, const LlamaFields& f, const AttentionShape& shape, int64_t rows,
       int64_t positions, const std::string& recompute) {
    embed_tokens = add<Table>(scope, "embed_tokens", rows, f.width);
    layers_ = add<Layers>(scope, "layers", f, shape, recompute);
    norm_ = add<Norm>(scope, "norm", f.width, f.rms_norm_eps);
    cos_sin_ = add_buffer("cos_sin", rope_table(f, shape.head_size, positions, scope.options()));
  }

  at::Tensor forward(const LanguageModel::Input& input) const {
    const int64_t before = input.cache ? input.cache->length : 0;
    const at::Tensor cos_sin = cos_sin_.index_select(0, positions_of(input.ids, before));  // [T, N]
    at::Tensor x = embedding(embed_tokens->weight, {}, input.ids), branch;
    const at::Tensor mask = attention_mask(input.segments);
    for (const auto& layer : layers_->all)
      std::tie(x, branch) = layer->forward(x, branch, cos_sin, mask, input.cache);
    if (input.cache) input.cache->length += input.ids.size(1);
    return norm_->forward(x, branch).first;
  }

  std::shared_ptr<Table> embed_tokens;

 private:
  std::shared_ptr<Layers> layers_;
  std::shared_ptr<Norm> norm_;
  at::Tensor cos_sin_;
};

class Llama : public LanguageModel {
 public:
  Llama(const LlamaFields& f, const RecomputeFields& recompute, const ModelContext& c)
      : vocabulary_(c.vocabulary), longest_(f.max_positions ? f.max_positions : c.context) {
    const AttentionShape shape{f.heads, f.kv_heads ? f.kv_heads : f.heads,
                               f.head_size ? f.head_size : f.width / f.heads};
    if (!f.head_size && f.width % f.heads != 0)
      throw field_error("heads",
                        fmt::format("{} heads do not divide a width of {}", f.heads, f.width),
                        "choose a divisor of model.width, or give model.head_size");
    if (shape.head_size % 2 != 0)
      throw field_error(
          "head_size",
          fmt::format("rotary positions need an even head size, not {}", shape.head_size),
          "choose another number of heads");
    if (shape.heads % shape.kv_heads != 0)
      throw field_error("kv_heads",
                        fmt::format("{} heads of keys do not divide {} heads of queries",
                                    shape.kv_heads, shape.heads),
                        "choose a divisor of model.heads");
    if (f.rope_factor != 1 && f.rope_high_freq_factor <= f.rope_low_freq_factor)
      throw field_error("rope_scaling.high_freq_factor", "it is not above low_freq_factor",
                        "Llama 3.1 has 1 and 4");
    if (longest_ < c.context)
      throw field_error(
          "max_positions",
          fmt::format("a context of {} tokens is longer than {} positions", c.context, longest_),
          "raise model.max_positions or shorten data.context");
    const int64_t multiple = f.pad_vocabulary_to;
    const int64_t rows = (vocabulary_ + multiple - 1) / multiple * multiple;
    const Scope scope(c.options, c.seed);
    model_ = add<Body>(scope, "model", f, shape, rows, longest_, recompute.mode);
    if (!f.tied) lm_head_ = add<Matrix>(scope, "lm_head", f.width, rows);
  }

  at::Tensor hidden(const Input& input) override { return model_->forward(input); }
  at::Tensor head() const override {
    return lm_head_ ? lm_head_->weight : model_->embed_tokens->weight;
  }
  int64_t vocabulary() const override { return vocabulary_; }
  int64_t longest() const override { return longest_; }

 private:
  int64_t vocabulary_, longest_;
  std::shared_ptr<Body> model_;
  std::shared_ptr<Matrix> lm_head_;
};

std::shared_ptr<Model> make(const FieldSource& fields, const ModelContext& c) {
  return std::make_shared<Llama>(fields.get<LlamaFields>(), fields.get<RecomputeFields>(), c);
}

}  // namespace

ModelEntry llama_model() {
  return {"llama",
          "a Llama transformer",
          false,
          false,
          true,
          LlamaFields::section,
          make,
          FixedFields({{"model.layers", int64_t{2}},
                       {"model.heads", int64_t{4}},
                       {"model.kv_heads", int64_t{2}},
                       {"model.width", int64_t{16}},
                       {"model.mlp_width", int64_t{24}}}),
          toy_text(13, 8)};
}

}  // namespace lehr::models
