// Token shards, one or several sources of them, mixed by weight. Which source and which window a
// sample is, is a function of its number: no counters, nothing to save.
#include "engine/data/tokens.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/base/random.h"
#include "engine/data/fields.h"
#include "engine/data/images.h"
#include "engine/data/order.h"
#include "engine/data/shard_reader.h"
#include "engine/data/windows.h"

namespace lehr::data {

Mixture::Mixture(std::vector<int64_t> counts) : counts_(std::move(counts)) {
  size_ = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
}

// Sample k of a source with n of them is at (k + 1/2) / n of the epoch; its place is the number of
// those before it.
int64_t Mixture::place(size_t source, int64_t k) const {
  __extension__ using Wide = __int128;
  int64_t before = k;
  for (size_t other = 0; other < counts_.size(); ++other) {
    if (other == source) continue;
    // how many j have (2 j + 1) / counts[other] below (2 k + 1) / n; equal ones go by source
    const Wide product = static_cast<Wide>(2 * k + 1) * counts_[other];
    const auto most =
        static_cast<int64_t>((other < source ? product : product - 1) / counts_[source]);
    before += std::min(counts_[other], (most + 1) / 2);
  }
  return before;
}

Mixture::Sample Mixture::at(int64_t i) const {
  __extension__ using Wide = __int128;
  const auto sources = static_cast<int64_t>(counts_.size());
  for (size_t source = 0; source < counts_.size(); ++source) {
    // places of a source's samples ascend, and none is further than one a source from its share
    const auto share = static_cast<int64_t>(static_cast<Wide>(i) * counts_[source] / size_);
    int64_t low = std::max<int64_t>(0, share - sources - 1);
    int64_t high = std::min(counts_[source], share + sources + 2);
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (place(source, middle) < i)
        low = middle + 1;
      else
        high = middle;
    }
    if (low < counts_[source] && place(source, low) == i) return {source, low};
  }
  throw Error(Code::kInternal, fmt::format("sample {} of a mixture of {}", i, size_));
}

std::vector<int64_t> shares(int64_t total, const std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> counts;
  std::vector<std::pair<double, size_t>> rest;
  int64_t left = total;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = static_cast<double>(total) * (weights[i] / sum);
    counts.push_back(static_cast<int64_t>(share));
    rest.emplace_back(static_cast<double>(counts[i]) - share, i);
    left -= counts[i];
  }
  std::sort(rest.begin(), rest.end());
  for (int64_t i = 0; i < left; ++i) ++counts[rest[static_cast<size_t>(i) % rest.size()].second];
  return counts;
}

namespace {

struct Source {
  std::string path;
  TokenStream train, validation;
  SplitFigures train_figures, validation_figures;
  std::vector<int64_t> counts;  // of the ids of all shards of training; empty: not known
  TokenStream cut;              // of them: what became validation
  std::optional<TextLayout> layout;
  TrainingWindows windows;
};

class TokenShards : public WindowDataset {
 public:
  explicit TokenShards(const FieldSource& source);
  int64_t size(Split split) const override {
    return split == Split::kTrain ? mixture_.size() : evaluated_[static_cast<int>(split)].windows();
  }
  bool is_ordered() const override { return true; }

 protected:
  WindowPlace place(Split split, int64_t sample, bool augment, uint64_t seed,
                    int64_t epoch) const override {
    if (split != Split::kTrain) return evaluated_[static_cast<int>(split)].at(sample);
    const auto [s, k] = mixture_.at(sample);
    const Source& source = sources_[s];
    const int64_t count = source.windows.count;
    if (!augment) return {&source.train, k % count * info_.context};
    // how many of this source went before, over all epochs: it is gone through again and again,
    // each pass in another order with other borders
    const int64_t before = epoch * mixture_.count(s) + k, pass = before / count;
    const uint64_t own = mix64(seed + s);
    const Permutation order(static_cast<uint64_t>(count), own, static_cast<uint64_t>(pass));
    Random random(own, Stream::kOrder, static_cast<uint64_t>(pass), 1);
    const int64_t shift = random.below(static_cast<uint32_t>(source.windows.shifts));
    const auto window = static_cast<int64_t>(order(static_cast<uint64_t>(before % count)));
    return {&source.train, window * info_.context + shift};
  }
  std::vector<int64_t> counts() const override;

 private:
  void hold_out(Source& source, double fraction) const;

  std::vector<Source> sources_;
  Mixture mixture_;
  EvaluationStreams evaluated_[3];
};

TokenShards::TokenShards(const FieldSource& source) {
  const auto common = source.get<DataFields>();
  const auto fields = source.get<TokensFields>();
  const auto windows = source.get<WindowFields>();
  if (fields.train_tokens.empty())
    throw Error(Code::kRecipe, "no token shards are given", "data.train_tokens");
  if (!fields.weights.empty() && fields.weights.size() != fields.train_tokens.size())
    throw Error(
        Code::kRecipe,
        fmt::format("{} weights for {} sources", fields.weights.size(), fields.train_tokens.size()),
        "data.weights", "Give one weight for each of data.train_tokens.");
  for (double weight : fields.weights)
    if (!(weight > 0) || !std::isfinite(weight))
      throw Error(Code::kRecipe, fmt::format("a weight of {}", weight), "data.weights",
                  "Weights are above 0; leave out a source that is not wanted.");
  info_.is_text = true;
  info_.context = windows.context;
  document_mask_ = windows.document_mask;

  ShardReader reader;
  auto open = [&](const std::string& path) {
    const TokenFolder folder = token_folder(path);
    Source result;
    result.path = path, result.counts = folder.counts, result.layout = folder.layout;
    reader.read(folder, folder.train, result.train, result.train_figures);
    reader.read(folder, folder.validation, result.validation, result.validation_figures);
    return result;
  };
  for (const auto& path : fields.train_tokens) sources_.push_back(open(path));
  bool held_out = !fields.validation_tokens.empty();
  info_.layout = sources_[0].layout;
  for (const Source& s : sources_) {
    held_out = held_out || s.validation.size() > 0;
    if (s.layout != info_.layout) info_.layout.reset();  // of each its own
  }
  std::vector<int64_t> counts;
  int64_t total = 0;
  for (Source& s : sources_) {
    if (!held_out && common.validation_fraction > 0) hold_out(s, common.validation_fraction);
    s.windows = TrainingWindows(s.train.size(), info_.context);
    if (s.windows.count == 0)
      throw Error(Code::kRecipe,
                  fmt::format("{} has {} tokens of training, fewer than one window of {} and its "
                              "last target",
                              s.path, s.train.size(), info_.context),
                  "data.context", "Take a shorter context, or leave this source out.");
    counts.push_back(s.windows.count);
    total += s.windows.count;
    figures_[0].add(s.train_figures);
  }
  // beyond memory, a window should not bring its neighbours along
  const int64_t bytes = figures_[0].tokens * (reader.vocabulary() <= 65536 ? 2 : 4);
  if (bytes / ::sysconf(_SC_PAGESIZE) > ::sysconf(_SC_PHYS_PAGES) / 2)
    for (Source& s : sources_) s.train.read_sparsely();
  mixture_ = Mixture(fields.weights.empty() ? counts : shares(total, fields.weights));
  auto evaluate = [&](Split split, TokenStream stream, const SplitFigures& figures) {
    evaluated_[static_cast<int>(split)].add(std::move(stream), info_.context);
    figures_[static_cast<int>(split)].add(figures);
  };
  for (Source& s : sources_)
    if (fields.validation_tokens.empty())
      evaluate(Split::kValidation, std::move(s.validation), s.validation_figures);
  for (const auto& [split, paths] : {std::pair{Split::kValidation, fields.validation_tokens},
                                     std::pair{Split::kTest, fields.test_tokens}})
    for (const auto& path : paths) {
      Source other = open(path);
      evaluate(split, std::move(other.train), other.train_figures);
    }

  if (document_mask_ && figures_[0].documents <= static_cast<int64_t>(sources_.size()))
    throw Error(Code::kRecipe, "documents are masked, but the shards hold no documents",
                "data.document_mask",
                "Run lehr tokenize with --document-separator, or leave document_mask out.");
  info_.vocabulary = reader.vocabulary();
  info_.tokenizer = reader.tokenizer();
  std::vector<std::string> hashes = reader.contents();
  if (info_.tokenizer.empty()) {
    remarks_.push_back(fmt::format(
        "no tokenizer.json is beside {}: there are no bits per byte, and no text from the model",
        fields.train_tokens[0]));
  } else {
    hashes.push_back(xxh3_128(info_.tokenizer.data(), info_.tokenizer.size()));
    set_tokenizer(parse_tokenizer(info_.tokenizer, fields.train_tokens[0]).get());
  }
  info_.fingerprint = fingerprint_of(hashes);
}

// The last part becomes validation, from the beginning of a document on where there is one.
void TokenShards::hold_out(Source& s, double fraction) const {
  auto border = static_cast<int64_t>(static_cast<double>(s.train.size()) * (1 - fraction));
  for (int64_t from = border, size = s.train.size(), step = 1 << 20; from < size; from += step) {
    const auto starts = s.train.documents_in(from, std::min(size, from + step));
    if (starts.empty()) continue;
    border = starts[0];
    break;
  }
  const TokenStream whole = s.train;
  const SplitFigures all = s.train_figures;
  s.train = whole.part(0, border);
  s.cut = s.validation = whole.part(border, whole.size());
  auto part_of = [&](const TokenStream& part) {
    const double share = static_cast<double>(part.size()) / static_cast<double>(whole.size());
    return SplitFigures{part.size(), part.documents(),
                        static_cast<uint64_t>(static_cast<double>(all.text_bytes) * share)};
  };
  s.train_figures = part_of(s.train), s.validation_figures = part_of(s.validation);
}

std::vector<int64_t> TokenShards::counts() const {
  std::vector<int64_t> counts(info_.vocabulary);
  for (const Source& s : sources_) {
    if (s.counts.size() == counts.size()) {
      for (size_t id = 0; id < counts.size(); ++id) counts[id] += s.counts[id];
      count_tokens(s.cut, -1, counts);
      continue;
    }
    log_info(
        fmt::format("{}: its tokens.json does not say how often each token stands in it: {} "
                    "tokens are counted",
                    s.path, s.train.size()));
    count_tokens(s.train, 1, counts);
  }
  return counts;
}

}  // namespace

std::shared_ptr<Dataset> open_tokens(const FieldSource& fields) {
  return std::make_shared<TokenShards>(fields);
}

}  // namespace lehr::data
