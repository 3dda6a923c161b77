// Token shards, one or several sources of them, mixed by weight. Which source and which window a
// sample is, is a function of its number: no counters, nothing to save.
#include "engine/data/tokens.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/random.h"
#include "engine/data/fields.h"
#include "engine/data/images.h"
#include "engine/data/order.h"
#include "engine/data/token_file.h"
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
  for (size_t source = 0; source < counts_.size(); ++source) {
    // places of a source's samples ascend
    int64_t low = 0, high = counts_[source];
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
  TrainingWindows windows;
};

class TokenShards : public WindowDataset {
 public:
  explicit TokenShards(const FieldSource& source);
  int64_t size(Split split) const override {
    return split == Split::kTrain ? mixture_.size() : ends_[static_cast<int>(split)].back();
  }
  bool is_ordered() const override { return true; }

 protected:
  Place place(Split split, int64_t sample, bool augment, uint64_t seed,
              int64_t epoch) const override {
    if (split != Split::kTrain) return evaluation_place(split, sample);
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

 private:
  Place evaluation_place(Split split, int64_t sample) const {
    const auto& ends = ends_[static_cast<int>(split)];
    const auto at = std::upper_bound(ends.begin() + 1, ends.end(), sample) - ends.begin() - 1;
    return {streams_[static_cast<int>(split)][at], (sample - ends[at]) * info_.context};
  }
  void add_shards(const std::vector<std::string>& paths, TokenStream& stream,
                  SplitFigures& figures);
  void add_evaluation(Split split, const TokenStream& stream, const SplitFigures& figures);

  std::vector<Source> sources_;
  std::vector<Source> others_;  // validation_tokens, test_tokens: their `train`
  Mixture mixture_;
  std::vector<const TokenStream*> streams_[3];      // of evaluation
  std::vector<int64_t> ends_[3] = {{0}, {0}, {0}};  // windows up to each of them
  SplitFigures figures_[3];
  std::vector<std::string> hashes_;
  std::string tokenizer_hash_, first_;
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

  auto open = [&](const std::string& path) {
    Source result;
    result.path = path;
    if (path.ends_with(".tokens")) {
      add_shards({path}, result.train, result.train_figures);
      return result;
    }
    const TokenFolder folder = read_token_folder(path);
    if (info_.tokenizer.empty()) info_.tokenizer = folder.tokenizer;
    add_shards(folder.train, result.train, result.train_figures);
    add_shards(folder.validation, result.validation, result.validation_figures);
    return result;
  };
  for (const auto& path : fields.train_tokens) sources_.push_back(open(path));
  bool held_out = !fields.validation_tokens.empty();
  for (const Source& s : sources_) held_out = held_out || s.validation.size() > 0;
  std::vector<int64_t> counts;
  int64_t total = 0;
  for (Source& s : sources_) {
    if (!held_out && common.validation_fraction > 0) {
      // the last part, from the beginning of a document on where there is one
      const double kept = static_cast<double>(s.train.size()) * (1 - common.validation_fraction);
      auto border = static_cast<int64_t>(kept);
      const auto& documents = s.train.documents();
      auto next = std::lower_bound(documents.begin(), documents.end(), border);
      if (next != documents.end()) border = *next;
      const TokenStream whole = s.train;
      const SplitFigures all = s.train_figures;
      s.train = whole.part(0, border);
      s.validation = whole.part(border, whole.size());
      auto part_of = [&](const TokenStream& part) {
        const double share = static_cast<double>(part.size()) / static_cast<double>(whole.size());
        return SplitFigures{part.size(), static_cast<int64_t>(part.documents().size()),
                            static_cast<uint64_t>(static_cast<double>(all.text_bytes) * share)};
      };
      s.train_figures = part_of(s.train), s.validation_figures = part_of(s.validation);
    }
    s.windows = TrainingWindows(s.train.size(), info_.context);
    if (s.windows.count == 0)
      throw Error(Code::kRecipe,
                  fmt::format("{} has {} tokens of training, fewer than one window of {} and its "
                              "last target",
                              s.path, s.train.size(), info_.context),
                  "data.context", "Take a shorter context, or leave this source out.");
    counts.push_back(s.windows.count);
    total += s.windows.count;
    figures_[0].tokens += s.train_figures.tokens;
    figures_[0].documents += s.train_figures.documents;
    figures_[0].text_bytes += s.train_figures.text_bytes;
  }
  mixture_ = Mixture(fields.weights.empty() ? counts : shares(total, fields.weights));
  others_.reserve(fields.validation_tokens.size() + fields.test_tokens.size());
  auto add_others = [&](const StringList& paths, Split split) {
    for (const auto& path : paths) {
      others_.push_back(open(path));
      add_evaluation(split, others_.back().train, others_.back().train_figures);
    }
  };
  if (fields.validation_tokens.empty())
    for (const Source& s : sources_)
      add_evaluation(Split::kValidation, s.validation, s.validation_figures);
  else
    add_others(fields.validation_tokens, Split::kValidation);
  add_others(fields.test_tokens, Split::kTest);

  if (document_mask_ && figures_[0].documents <= static_cast<int64_t>(sources_.size()))
    throw Error(Code::kRecipe, "documents are masked, but the shards hold no documents",
                "data.document_mask",
                "Run lehr tokenize with --document-separator, or leave document_mask out.");
  if (!info_.tokenizer.empty())
    hashes_.push_back(xxh3_128(info_.tokenizer.data(), info_.tokenizer.size()));
  info_.fingerprint = fingerprint_of(hashes_);
  info_.bytes_per_token = figures_[figures_[1].tokens > 0 ? 1 : 0].bytes_per_token();
  std::vector<const TokenStream*> train;
  for (const Source& s : sources_) train.push_back(&s.train);
  statistics_ = text_statistics(figures_, info_, train);
}

void TokenShards::add_shards(const std::vector<std::string>& paths, TokenStream& stream,
                             SplitFigures& figures) {
  for (const auto& path : paths) {
    const TokenShard shard = open_token_shard(path);
    if (first_.empty()) {
      first_ = path;
      tokenizer_hash_ = shard.tokenizer;
      info_.vocabulary = shard.vocabulary;
    } else if (shard.tokenizer != tokenizer_hash_) {
      throw Error(Code::kData, fmt::format("made by another tokenizer than {}", first_), path,
                  "Make all sources with one tokenizer.");
    }
    stream.add(shard.memory, shard.memory.get(), shard.token_bytes, shard.count, shard.documents);
    figures.tokens += shard.count;
    figures.documents += static_cast<int64_t>(shard.documents.size());
    figures.text_bytes += shard.text_bytes;
    hashes_.push_back(shard.content);
  }
}

void TokenShards::add_evaluation(Split split, const TokenStream& stream,
                                 const SplitFigures& figures) {
  const int index = static_cast<int>(split);
  streams_[index].push_back(&stream);
  ends_[index].push_back(ends_[index].back() + evaluation_windows(stream.size(), info_.context));
  figures_[index].tokens += figures.tokens;
  figures_[index].documents += figures.documents;
  figures_[index].text_bytes += figures.text_bytes;
}

}  // namespace

std::shared_ptr<Dataset> open_tokens(const FieldSource& fields) {
  return std::make_shared<TokenShards>(fields);
}

}  // namespace lehr::data
