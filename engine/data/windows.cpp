#include "engine/data/windows.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "engine/base/error.h"

namespace lehr::data {
namespace {

constexpr int64_t kNoTarget = -100;  // what losses leave out

// returns the largest
template <class T>
int64_t widen(const void* data, int64_t begin, int64_t count, int64_t* out) {
  const T* from = static_cast<const T*>(data) + begin;
  T largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = from[i];
    largest = std::max(largest, from[i]);
  }
  return largest;
}

template <class T>
struct Copied {
  std::vector<T> ids;
  std::vector<int64_t> documents;
};

// tells the kernel how mapped memory is read; without it all still works
void advise(const void* data, int64_t bytes, int advice) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(data), begin = address / page * page;
  ::madvise(reinterpret_cast<void*>(begin), address - begin + static_cast<uintptr_t>(bytes),
            advice);
}

const char* const kDamaged =
    "The file is damaged: remove it and tokens.json, and run the same lehr tokenize again.";

}  // namespace

void TokenStream::add(Piece piece) {
  piece.begin = size_, piece.documents_before = documents_;
  size_ += piece.count;
  documents_ += static_cast<int64_t>(piece.documents.size());
  pieces_.push_back(std::move(piece));
}

void TokenStream::add(const TokenShard& shard) {
  add(Piece{shard.memory, shard.memory.get(), shard.token_bytes, 0, shard.count, shard.vocabulary,
            shard.path, shard.documents});
}

void TokenStream::add(const Tokens& ids, int64_t vocabulary,
                      const std::vector<int64_t>& documents) {
  auto copy = [&]<class T>(T) {
    const auto memory = std::make_shared<const Copied<T>>(
        Copied<T>{std::vector<T>(ids.begin(), ids.end()), documents});
    add(Piece{memory, memory->ids.data(), sizeof(T), 0, static_cast<int64_t>(ids.size()),
              vocabulary, "", memory->documents});
  };
  vocabulary <= 65536 ? copy(uint16_t{}) : copy(uint32_t{});
}

std::vector<TokenStream::Piece>::const_iterator TokenStream::piece_at(int64_t token) const {
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), token,
                                [](int64_t at, const Piece& p) { return at < p.begin; });
  return piece == pieces_.begin() ? piece : piece - 1;
}

void TokenStream::read(int64_t begin, int64_t count, int64_t* out) const {
  TORCH_CHECK(begin >= 0 && count >= 0 && begin + count <= size_, "tokens beyond the stream");
  for (auto piece = piece_at(begin); count > 0; ++piece) {
    const int64_t at = begin - piece->begin, n = std::min(count, piece->count - at);
    if (sparse_)
      advise(static_cast<const char*>(piece->data) + at * piece->bytes, n * piece->bytes,
             MADV_WILLNEED);
    const int64_t largest = piece->bytes == 2 ? widen<uint16_t>(piece->data, at, n, out)
                                              : widen<uint32_t>(piece->data, at, n, out);
    if (largest >= piece->vocabulary)
      throw Error(Code::kData,
                  fmt::format("token {} is {}, and its ids are below {}",
                              piece->first + at + (std::find(out, out + n, largest) - out), largest,
                              piece->vocabulary),
                  piece->path, kDamaged);
    begin += n, count -= n, out += n;
  }
}

void TokenStream::read_sparsely() {
  sparse_ = true;
  for (const Piece& piece : pieces_) advise(piece.data, piece.count * piece.bytes, MADV_RANDOM);
}

int64_t TokenStream::document_of(int64_t token) const {
  const auto piece = piece_at(token);
  const auto& starts = piece->documents;
  return piece->documents_before - 1 +
         (std::upper_bound(starts.begin(), starts.end(), token - piece->begin + piece->first) -
          starts.begin());
}

std::vector<int64_t> TokenStream::documents_in(int64_t begin, int64_t end) const {
  std::vector<int64_t> found;
  if (pieces_.empty()) return found;
  for (auto piece = piece_at(begin); piece != pieces_.end() && piece->begin < end; ++piece) {
    const auto& starts = piece->documents;
    const int64_t shift = piece->begin - piece->first;  // from the shard's numbers to the stream's
    auto start = std::lower_bound(starts.begin(), starts.end(), begin - shift);
    for (; start != starts.end() && *start + shift < end; ++start) {
      const int64_t at = *start + shift;
      if (at < std::max(begin, piece->begin) || at >= piece->begin + piece->count ||
          (!found.empty() && at <= found.back()))
        throw Error(Code::kData,
                    fmt::format("document {} begins at token {}, which cannot be",
                                start - starts.begin(), *start),
                    piece->path, kDamaged);
      found.push_back(at);
    }
  }
  return found;
}

TokenStream TokenStream::part(int64_t begin, int64_t end) const {
  TokenStream result;
  for (const Piece& piece : pieces_) {
    const int64_t from = std::max(begin, piece.begin),
                  to = std::min(end, piece.begin + piece.count);
    if (from >= to) continue;
    Piece cut = piece;
    cut.data = static_cast<const char*>(piece.data) + (from - piece.begin) * piece.bytes;
    cut.count = to - from;
    cut.first += from - piece.begin;
    const auto& starts = piece.documents;
    const auto low = std::lower_bound(starts.begin(), starts.end(), cut.first);
    const auto high = std::lower_bound(low, starts.end(), cut.first + cut.count);
    cut.documents = starts.subspan(low - starts.begin(), high - low);
    result.add(std::move(cut));
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

void EvaluationStreams::add(TokenStream stream, int64_t context) {
  context_ = context;
  ends_.push_back(ends_.back() + evaluation_windows(stream.size(), context));
  streams_.push_back(std::make_unique<const TokenStream>(std::move(stream)));
}

WindowPlace EvaluationStreams::at(int64_t window) const {
  const auto s = std::upper_bound(ends_.begin() + 1, ends_.end(), window) - ends_.begin() - 1;
  return {streams_[s].get(), (window - ends_[s]) * context_};
}

void SplitFigures::add(const SplitFigures& other) {
  tokens += other.tokens, documents += other.documents, text_bytes += other.text_bytes;
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
    const WindowPlace at = place(split, samples[i], augment, seed, epoch);
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
    const auto starts = at.stream->documents_in(at.begin + 1, at.begin + n);
    auto next = starts.begin();
    int64_t document = at.stream->document_of(at.begin);
    for (int64_t t = 0; t < n - 1; ++t) {
      segments[t] = document;
      if (next == starts.end() || *next != at.begin + t + 1) continue;
      targets[t] = kNoTarget;  // the first token of another document
      ++document, ++next;
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

void WindowDataset::set_tokenizer(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return;
  std::vector<int64_t> sizes = tokenizer->sizes();
  sizes.resize(info_.vocabulary, 0);
  for (int64_t& size : sizes) size = std::max<int64_t>(size, 0);
  info_.token_bytes = at::tensor(sizes);
}

void count_tokens(const TokenStream& stream, int64_t by, std::vector<int64_t>& counts) {
  std::vector<int64_t> buffer;
  for (int64_t at = 0; at < stream.size(); at += static_cast<int64_t>(buffer.size())) {
    buffer.resize(std::min<int64_t>(1 << 16, stream.size() - at));
    stream.read(at, static_cast<int64_t>(buffer.size()), buffer.data());
    for (int64_t id : buffer) counts.at(id) += by;
  }
}

std::string WindowDataset::statistics() const {
  using Json = nlohmann::json;
  const std::vector<int64_t> counts = this->counts();
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  double entropy = 0;
  for (int64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / static_cast<double>(total);
    entropy -= p * std::log(p);
  }
  Json json{{"kind", "text"},
            {"vocabulary", info_.vocabulary},
            {"context", info_.context},
            {"unigram_entropy", entropy},
            {"tokens_seen", counts.size() - std::count(counts.begin(), counts.end(), 0)}};
  for (Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
    const SplitFigures& figures = figures_[static_cast<int>(split)];
    const char* name = to_string(split);
    json["tokens"][name] = figures.tokens;
    json["documents"][name] = figures.documents;
    json["bytes"][name] = figures.text_bytes;
    json["bytes_per_token"][name] = figures.tokens == 0 ? 0
                                                        : static_cast<double>(figures.text_bytes) /
                                                              static_cast<double>(figures.tokens);
  }
  return json.dump(2);
}

}  // namespace lehr::data
