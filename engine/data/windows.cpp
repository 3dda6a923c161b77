#include "engine/data/windows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"

namespace lehr::data {
namespace {

constexpr int64_t kNoTarget = -100;  // what losses leave out

template <class T>
void widen(const void* data, int64_t begin, int64_t count, int64_t* out) {
  const T* from = static_cast<const T*>(data) + begin;
  std::copy(from, from + count, out);
}

template <class T>
std::shared_ptr<const void> narrowed(const Tokens& ids) {
  auto copy = std::make_shared<std::vector<T>>(ids.begin(), ids.end());
  return {copy, copy->data()};
}

}  // namespace

void TokenStream::add(std::shared_ptr<const void> owner, const void* data, int bytes, int64_t count,
                      const std::vector<int64_t>& documents) {
  for (int64_t begin : documents) documents_.push_back(size_ + begin);
  pieces_.push_back({std::move(owner), data, bytes, size_, count});
  size_ += count;
}

void TokenStream::add(const Tokens& ids, int64_t vocabulary,
                      const std::vector<int64_t>& documents) {
  const bool narrow = vocabulary <= 65536;
  auto memory = narrow ? narrowed<uint16_t>(ids) : narrowed<uint32_t>(ids);
  const void* data = memory.get();
  add(std::move(memory), data, narrow ? 2 : 4, static_cast<int64_t>(ids.size()), documents);
}

void TokenStream::read(int64_t begin, int64_t count, int64_t* out) const {
  TORCH_CHECK(begin >= 0 && count >= 0 && begin + count <= size_, "tokens beyond the stream");
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), begin,
                                [](int64_t at, const Piece& p) { return at < p.begin; });
  if (piece != pieces_.begin()) --piece;
  for (; count > 0; ++piece) {
    const int64_t at = begin - piece->begin, n = std::min(count, piece->count - at);
    if (piece->bytes == 2)
      widen<uint16_t>(piece->data, at, n, out);
    else
      widen<uint32_t>(piece->data, at, n, out);
    begin += n, count -= n, out += n;
  }
}

int64_t TokenStream::document_of(int64_t token) const {
  return std::upper_bound(documents_.begin(), documents_.end(), token) - documents_.begin() - 1;
}

TokenStream TokenStream::part(int64_t begin, int64_t end) const {
  TokenStream result;
  for (const Piece& piece : pieces_) {
    const int64_t from = std::max(begin, piece.begin),
                  to = std::min(end, piece.begin + piece.count);
    if (from >= to) continue;
    std::vector<int64_t> documents;
    for (auto it = std::lower_bound(documents_.begin(), documents_.end(), from);
         it != documents_.end() && *it < to; ++it)
      documents.push_back(*it - from);
    const auto* data = static_cast<const char*>(piece.data) + (from - piece.begin) * piece.bytes;
    result.add(piece.owner, data, piece.bytes, to - from, documents);
  }
  return result;
}

TrainingWindows::TrainingWindows(int64_t tokens, int64_t context) {
  if (tokens <= context) return;  // not one window with its last target
  count = std::max<int64_t>(1, tokens / context - 1);
  shifts = std::min(context, tokens - count * context);
}

int64_t evaluation_windows(int64_t tokens, int64_t context) {
  return tokens < 2 ? 0 : (tokens - 1 + context - 1) / context;
}

Batch WindowDataset::allocate(int64_t size) const {
  Batch batch;
  batch.inputs = at::empty({size, info_.context}, at::kLong);
  batch.targets = at::empty({size, info_.context}, at::kLong);
  if (document_mask_) batch.segments = at::empty({size, info_.context}, at::kLong);
  batch.samples.resize(size);
  return batch;
}

void WindowDataset::fill(Split split, const int64_t* samples, int64_t begin, int64_t end,
                         bool augment, uint64_t seed, int64_t epoch, Batch& batch) const {
  TORCH_CHECK(batch.inputs.is_contiguous() && batch.targets.is_contiguous() &&
                  batch.inputs.size(0) >= end && batch.segments.defined() == document_mask_,
              "fill: the batch is not one that allocate() made");
  const int64_t context = info_.context;
  std::vector<int64_t> window(context + 1);
  for (int64_t i = begin; i < end; ++i) {
    const Place at = place(split, samples[i], augment, seed, epoch);
    // the last window of an evaluation may be short: what follows is no target
    const int64_t n = std::min(context + 1, at.stream->size() - at.begin);
    at.stream->read(at.begin, n, window.data());
    int64_t* inputs = batch.inputs.data_ptr<int64_t>() + i * context;
    int64_t* targets = batch.targets.data_ptr<int64_t>() + i * context;
    std::fill(std::copy_n(window.data(), n - 1, inputs), inputs + context, 0);
    std::fill(std::copy_n(window.data() + 1, n - 1, targets), targets + context, kNoTarget);
    batch.samples[i] = samples[i];
    if (!document_mask_) continue;
    int64_t* segments = batch.segments.data_ptr<int64_t>() + i * context;
    const auto& starts = at.stream->documents();
    int64_t document = at.stream->document_of(at.begin);
    for (int64_t t = 0; t < n - 1; ++t) {
      segments[t] = document;
      const bool ends = document + 1 < static_cast<int64_t>(starts.size()) &&
                        starts[document + 1] == at.begin + t + 1;
      if (!ends) continue;
      targets[t] = kNoTarget;  // the first token of another document
      ++document;
    }
    std::fill(segments + n - 1, segments + context, -1);
  }
}

RawBatch WindowDataset::raw(Split split, const std::vector<int64_t>& samples) const {
  const int64_t n = static_cast<int64_t>(samples.size());
  Batch batch = allocate(n);
  fill(split, samples.data(), 0, n, false, 0, 0, batch);
  RawBatch raw;
  raw.tokens = batch.inputs;
  raw.targets = batch.targets;
  return raw;
}

Preprocessing WindowDataset::preprocessing() const {
  Preprocessing p;
  p.source = R"(
def preprocess(self, tokens: Tensor) -> Tensor:
    return tokens
)";
  return p;
}

std::string text_statistics(const SplitFigures (&splits)[3], const DataInfo& info,
                            const std::vector<const TokenStream*>& train) {
  using Json = nlohmann::json;
  std::vector<int64_t> counts(info.vocabulary), buffer;
  int64_t total = 0;
  for (const TokenStream* stream : train) {
    for (int64_t at = 0; at < stream->size(); at += static_cast<int64_t>(buffer.size())) {
      buffer.resize(std::min<int64_t>(1 << 16, stream->size() - at));
      stream->read(at, static_cast<int64_t>(buffer.size()), buffer.data());
      for (int64_t id : buffer) ++counts.at(id);
    }
    total += stream->size();
  }
  double entropy = 0;
  for (int64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(total);
    entropy -= p * std::log(p);
  }
  Json json{{"kind", "text"},
            {"vocabulary", info.vocabulary},
            {"context", info.context},
            {"unigram_entropy", entropy},
            {"tokens_seen", counts.size() - std::count(counts.begin(), counts.end(), 0)}};
  for (Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
    const SplitFigures& figures = splits[static_cast<int>(split)];
    const char* name = to_string(split);
    json["tokens"][name] = figures.tokens;
    json["documents"][name] = figures.documents;
    json["bytes"][name] = figures.text_bytes;
    json["bytes_per_token"][name] = figures.bytes_per_token();
  }
  return json.dump(2);
}

}  // namespace lehr::data
