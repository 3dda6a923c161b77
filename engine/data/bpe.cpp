#include "engine/data/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <unordered_map>

#include "engine/base/random.h"

namespace lehr::data {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
// below it, looking through a word for its best pair is faster than a heap
constexpr size_t kShort = 64;

// (left, right) -> (priority, result): open addressing, half empty
class PairTable {
 public:
  struct Entry {
    uint32_t left = kNone, right = kNone, priority = kNone, result = kNone;
  };
  explicit PairTable(const std::vector<Merge>& merges) {
    size_t size = 16;
    while (size < 2 * merges.size()) size *= 2;
    entries_.resize(size);
    for (const Merge& merge : merges) {
      entries_[slot(merge.left, merge.right)] = {merge.left, merge.right, merge.priority,
                                                 merge.result};
    }
  }
  // priority kNone: the two do not merge
  const Entry& find(uint32_t left, uint32_t right) const { return entries_[slot(left, right)]; }

 private:
  size_t slot(uint32_t left, uint32_t right) const {
    const size_t mask = entries_.size() - 1;
    size_t at = mix64(static_cast<uint64_t>(left) << 32 | right) & mask;
    while (entries_[at].left != kNone && (entries_[at].left != left || entries_[at].right != right))
      at = (at + 1) & mask;
    return at;
  }
  std::vector<Entry> entries_;
};

class Bpe : public Tokenizer {
 public:
  Bpe(BpeParts parts, const std::string& where);
  void encode(std::string_view text, Tokens& ids, bool special) const override;
  std::string decode(const uint32_t* ids, size_t count) const override;
  int64_t vocabulary() const override { return vocabulary_; }
  size_t whole(std::string_view text) const override {
    // tokens that are found in every text may lie across any place
    return added_.any_plain() ? 0 : splitter_.certain(text);
  }
  std::vector<int64_t> sizes() const override;
  Tokens begin_of_text() const override { return parts_.begin; }
  std::optional<uint32_t> end_of_text() const override {
    for (const char* name : {kEndOfText, "<|end_of_text|>", "</s>"})
      for (const AddedToken& token : added_.all())
        if (token.content == name) return token.id;
    return std::nullopt;
  }
  std::string kind() const override { return "bpe"; }
  std::string json() const override { return write_bpe(parts_); }

 private:
  void encode_text(std::string_view text, Tokens& ids) const;
  void merge(std::string_view word, Tokens& ids) const;
  void merge_short(Tokens& symbols) const;
  void merge_long(Tokens& symbols) const;

  BpeParts parts_;
  Splitter splitter_;
  PairTable pairs_;
  std::unordered_map<std::string_view, uint32_t> words_;  // into parts_.tokens
  AddedTokens added_;
  std::vector<const AddedToken*> added_by_id_;  // nullptr: none
  uint32_t bytes_[256];
  int64_t vocabulary_ = 0;
};

Bpe::Bpe(BpeParts parts, const std::string& where)
    : parts_(std::move(parts)),
      splitter_(parts_.pattern, where),
      pairs_(parts_.merges),
      added_(parts_.added) {
  parts_.added = added_.all();  // by id
  const auto& tokens = parts_.tokens;
  std::fill(std::begin(bytes_), std::end(bytes_), kNone);
  for (uint32_t id = 0; id < tokens.size(); ++id)
    if (tokens[id].size() == 1) bytes_[static_cast<uint8_t>(tokens[id][0])] = id;
  for (int byte = 0; byte < 256; ++byte)
    if (bytes_[byte] == kNone)
      throw Error(Code::kData, fmt::format("there is no token for byte {}", byte), where,
                  "A byte-level BPE has one for each of the 256 bytes.");
  vocabulary_ = static_cast<int64_t>(tokens.size());
  for (const AddedToken& token : added_.all()) {
    vocabulary_ = std::max<int64_t>(vocabulary_, token.id + int64_t{1});
    if (added_by_id_.size() <= token.id) added_by_id_.resize(token.id + 1);
    added_by_id_[token.id] = &token;
  }
  const std::vector<int64_t> known = sizes();
  for (uint32_t id : parts_.begin)
    if (id >= known.size() || known[id] == kNoToken)
      throw Error(Code::kData,
                  fmt::format("the post_processor names token {}, and there is none", id), where,
                  "The file is damaged: fetch it again.");
  // words that are a token and that merges would make that token need no merging
  words_.reserve(tokens.size());
  Tokens made;
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const bool is_special =
        id < added_by_id_.size() && added_by_id_[id] && added_by_id_[id]->special;
    if (tokens[id].empty() || is_special) continue;
    made.clear();
    if (!parts_.whole_words) merge(tokens[id], made);
    if (parts_.whole_words || (made.size() == 1 && made[0] == id)) words_.emplace(tokens[id], id);
  }
}

void Bpe::encode(std::string_view text, Tokens& ids, bool special) const {
  if (!special && !added_.any_plain()) return encode_text(text, ids);
  added_.split(
      text, special, [&](std::string_view words) { encode_text(words, ids); },
      [&](uint32_t id) { ids.push_back(id); });
}

std::vector<int64_t> Bpe::sizes() const {
  std::vector<int64_t> sizes(vocabulary_, kNoToken);
  for (size_t id = 0; id < parts_.tokens.size(); ++id)
    if (!parts_.tokens[id].empty()) sizes[id] = static_cast<int64_t>(parts_.tokens[id].size());
  for (const AddedToken& token : added_.all())
    sizes[token.id] = token.special ? 0 : static_cast<int64_t>(token.content.size());
  return sizes;
}

void Bpe::encode_text(std::string_view text, Tokens& ids) const {
  std::vector<size_t> ends;
  ends.reserve(text.size() / 4 + 1);
  splitter_.split(text, ends);
  size_t begin = 0;
  for (size_t end : ends) {
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (auto found = words_.find(word); found != words_.end())
      ids.push_back(found->second);
    else
      merge(word, ids);
  }
}

void Bpe::merge(std::string_view word, Tokens& ids) const {
  thread_local Tokens symbols;
  symbols.clear();
  for (char c : word) symbols.push_back(bytes_[static_cast<uint8_t>(c)]);
  if (symbols.size() <= kShort)
    merge_short(symbols);
  else
    merge_long(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void Bpe::merge_short(Tokens& symbols) const {
  // of each symbol with the one after it
  PairTable::Entry pairs[kShort];
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = pairs_.find(symbols[i], symbols[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].priority < pairs[best].priority) best = i;
    if (pairs[best].priority == kNone) break;
    symbols[best] = pairs[best].result;
    std::copy(symbols.begin() + best + 2, symbols.begin() + n, symbols.begin() + best + 1);
    if (best + 2 < n) std::copy(pairs + best + 2, pairs + n - 1, pairs + best + 1);
    --n;
    if (best + 1 < n) pairs[best] = pairs_.find(symbols[best], symbols[best + 1]);
    if (best > 0) pairs[best - 1] = pairs_.find(symbols[best - 1], symbols[best]);
  }
  symbols.resize(n);
}

void Bpe::merge_long(Tokens& symbols) const {
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(n), before(n);
  struct Pair {
    uint32_t priority, at, left, right;
  };
  auto later = [](const Pair& a, const Pair& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.at > b.at;
  };
  std::vector<Pair> memory;
  memory.reserve(n);
  std::priority_queue<Pair, std::vector<Pair>, decltype(later)> queue(later, std::move(memory));
  auto offer = [&](uint32_t at) {
    const uint32_t left = symbols[at], right = symbols[next[at]];
    if (const auto& pair = pairs_.find(left, right); pair.priority != kNone)
      queue.push({pair.priority, at, left, right});
  };
  for (uint32_t i = 0; i < n; ++i) before[i] = i == 0 ? kNone : i - 1, next[i] = i + 1;
  for (uint32_t i = 0; i + 1 < n; ++i) offer(i);
  while (!queue.empty()) {
    const Pair pair = queue.top();
    queue.pop();
    // a neighbour has merged since: this pair is no more
    const uint32_t right = next[pair.at];
    if (symbols[pair.at] != pair.left || right >= n || symbols[right] != pair.right) continue;
    symbols[pair.at] = pairs_.find(pair.left, pair.right).result;
    symbols[right] = kNone;
    next[pair.at] = next[right];
    if (next[right] < n) {
      before[next[right]] = pair.at;
      offer(pair.at);
    }
    if (before[pair.at] != kNone) offer(before[pair.at]);
  }
  symbols.erase(std::remove(symbols.begin(), symbols.end(), kNone), symbols.end());
}

std::string Bpe::decode(const uint32_t* ids, size_t count) const {
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t id = ids[i];
    if (id < added_by_id_.size() && added_by_id_[id]) {
      text += added_by_id_[id]->content;
    } else if (id < parts_.tokens.size() && !parts_.tokens[id].empty()) {
      text += parts_.tokens[id];
    } else {
      throw Error(Code::kData, fmt::format("there is no token {}", id), "",
                  fmt::format("The tokenizer has ids 0 to {}.", vocabulary_ - 1));
    }
  }
  return text;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_bpe(BpeParts parts, const std::string& where) {
  return std::make_shared<Bpe>(std::move(parts), where);
}

}  // namespace lehr::data
