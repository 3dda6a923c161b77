#include "engine/export/sampling.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>

#include "engine/base/error.h"
#include "engine/base/random.h"
#include "engine/data/tokenizer.h"

namespace lehr::artefact {

void check(const Sampling& s) {
  auto refuse = [](const char* option, const std::string& what, const char* hint) {
    return Error(Code::kUsage, what, option, hint);
  };
  if (!(s.temperature >= 0 && s.temperature <= 1e6))
    throw refuse("--temperature", fmt::format("a temperature of {}", s.temperature),
                 "0 takes the most probable token, 1 samples as the model says");
  if (s.top_k < 0)
    throw refuse("--top-k", fmt::format("{} most probable tokens", s.top_k),
                 "0 leaves all tokens in");
  if (!(s.top_p > 0 && s.top_p <= 1))
    throw refuse("--top-p", fmt::format("a share of {}", s.top_p),
                 "give a share above 0; 1 leaves all tokens in");
}

at::Tensor draws(int64_t seed, int64_t position, int64_t rows) {
  at::Tensor out = at::empty({rows, 1}, at::kDouble);
  double* value = out.mutable_data_ptr<double>();
  for (int64_t row = 0; row < rows; ++row) {
    const auto bits = philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(row),
                                  static_cast<uint32_t>(Stream::kGenerate), 0},
                                 static_cast<uint64_t>(seed));
    value[row] = static_cast<double>(bits[0]) * 0x1p-32;
  }
  return out;
}

at::Tensor token_mask(const std::string& tokenizer, int64_t vocabulary) {
  if (tokenizer.empty()) return {};
  std::vector<int64_t> sizes = data::parse_tokenizer(tokenizer, "tokenizer.json")->sizes();
  sizes.resize(vocabulary, data::Tokenizer::kNoToken);
  at::Tensor mask = at::zeros({vocabulary});
  float* value = mask.mutable_data_ptr<float>();
  bool all = true;
  for (int64_t id = 0; id < vocabulary; ++id)
    if (sizes[id] == data::Tokenizer::kNoToken) {
      value[id] = -std::numeric_limits<float>::infinity();
      all = false;
    }
  return all ? at::Tensor() : mask;
}

at::Tensor sample(const at::Tensor& logits, const at::Tensor& draw, const Sampling& s) {
  if (s.temperature <= 0) return at::argmax(logits, 1, /*keepdim=*/true);
  auto [scores, ids] = at::sort(logits.to(at::kDouble) / s.temperature, /*stable=*/true, 1, true);
  if (s.top_k > 0) scores = scores.slice(1, 0, s.top_k);
  at::Tensor probability = at::softmax(scores, 1), sum = probability.cumsum(1);
  if (s.top_p < 1) {
    probability = probability * (sum - probability).lt(s.top_p).to(at::kDouble);
    sum = probability.cumsum(1);
  }
  const at::Tensor passed = sum.le(draw * sum.slice(1, -1)).sum(1, /*keepdim=*/true);
  return ids.gather(1, passed);
}

// The product of 32-bit numbers is taken in 16-bit parts, since int64 has no sign to spare. A loop
// is over the length of a tensor, because the scan lets no other pass.
static const char* const kDrawSource = R"(
def lehr_draws(self, seed: int, position: int, rows: int, count: int) -> Tensor:
    a = (torch.arange(count) + position).unsqueeze(1).repeat(1, rows)
    b = torch.arange(rows).unsqueeze(0).repeat(count, 1)
    c = torch.zeros_like(a) + 6
    d = torch.zeros_like(a)
    k = torch.full([1], seed, dtype=torch.int64)
    k0 = k.bitwise_and(4294967295)
    k1 = k.floor_divide(4294967296).bitwise_and(4294967295)
    rounds = torch.arange(10)
    for i in range(len(rounds)):
        low = a.bitwise_and(65535) * 3528531795
        high = a.floor_divide(65536) * 3528531795 + low.floor_divide(65536)
        p0_low = high.bitwise_and(65535) * 65536 + low.bitwise_and(65535)
        p0_high = high.floor_divide(65536)
        low = c.bitwise_and(65535) * 3449720151
        high = c.floor_divide(65536) * 3449720151 + low.floor_divide(65536)
        p1_low = high.bitwise_and(65535) * 65536 + low.bitwise_and(65535)
        p1_high = high.floor_divide(65536)
        a = p1_high.bitwise_xor(b).bitwise_xor(k0)
        c = p0_high.bitwise_xor(d).bitwise_xor(k1)
        b = p1_low
        d = p0_low
        k0 = (k0 + 2654435769).bitwise_and(4294967295)
        k1 = (k1 + 3144134277).bitwise_and(4294967295)
    return (a.to(torch.float64) / 4294967296.0).unsqueeze(2)

def lehr_sample(self, logits: Tensor, draw: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    if temperature <= 0.0:
        return torch.argmax(logits, 1, True)
    scores, ids = torch.sort(logits.to(torch.float64) / temperature, stable=True, dim=1, descending=True)
    if top_k > 0:
        scores = scores[:, :top_k]
    probability = torch.softmax(scores, 1)
    total = torch.cumsum(probability, 1)
    if top_p < 1.0:
        probability = probability * ((total - probability) < top_p).to(torch.float64)
        total = torch.cumsum(probability, 1)
    passed = torch.sum((total <= draw * total[:, -1:]).to(torch.int64), [1], True)
    return ids.gather(1, passed)

)";
static const char* const kGenerate = R"(
def generate(self, tokens: Tensor, new_tokens: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> Tensor:
    self.lehr_check(tokens)
    if new_tokens < 0:
        raise ValueError("new_tokens: 0 or more is wanted, not {{}}".format(new_tokens))
    if not (temperature >= 0.0 and temperature <= 1000000.0):
        raise ValueError("temperature: 0 (the most probable token) to 1e6 is wanted, not {{}}".format(temperature))
    if top_k < 0:
        raise ValueError("top_k: 0 (all tokens) or more is wanted, not {{}}".format(top_k))
    if not (top_p > 0.0 and top_p <= 1.0):
        raise ValueError("top_p: above 0, up to 1 (all tokens), is wanted, not {{}}".format(top_p))
    draws = self.lehr_draws(seed, tokens.size(1), tokens.size(0), new_tokens)
    for i in range(len(draws)):
        logits = self.forward(tokens[:, -self.context:])[0][:, -1]{}
        tokens = torch.cat([tokens, self.lehr_sample(logits, draws[i], temperature, top_k, top_p)], 1)
    return tokens
)";

std::string generate_source(bool masked) {
  return kDrawSource + fmt::format(fmt::runtime(kGenerate), masked ? " + self.token_mask" : "");
}

}  // namespace lehr::artefact
