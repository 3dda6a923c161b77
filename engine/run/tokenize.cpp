// Documents are read in order, encoded in batches by several threads, and put into shards in order:
// where a shard ends depends on the documents alone. Each shard says where in the input it ends, so
// that whole ones are skipped and the first that is missing is where work goes on.
#include "engine/run/tokenize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/data/bytes.h"
#include "engine/data/documents.h"
#include "engine/data/order.h"
#include "engine/data/token_file.h"
#include "engine/data/tokenizer.h"

namespace lehr::run {

using data::InputPlace;
using data::Tokens;
using data::TokenShard;
using nlohmann::json;

namespace {

constexpr size_t kBatchBytes = 1 << 20;  // long enough that handing it over costs nothing

// \n, \t, \r and \\ as a shell passes them on
std::string unescaped(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t known =
        text[i] == '\\' && i + 1 < text.size() ? std::string("ntr\\").find(text[i + 1]) : text.npos;
    result += known == text.npos ? text[i] : "\n\t\r\\"[known];
    if (known != text.npos) ++i;
  }
  return result;
}

struct Document {
  std::string_view text;
  InputPlace end;  // where to go on after it
};

// The documents of all files, from any place.
class Reader {
 public:
  Reader(std::vector<std::string> paths, std::string separator)
      : paths_(std::move(paths)), separator_(std::move(separator)) {}
  void seek(const InputPlace& place) { place_ = place; }
  // The next one, and the file that it lies in; nullopt: there is none.
  std::optional<Document> next() {
    for (; place_.file < paths_.size(); place_ = {place_.file + 1, 0}) {
      if (!file_ || file_->path != paths_[place_.file])
        file_ = std::make_shared<data::Bytes>(data::read_bytes(paths_[place_.file]));
      const std::string_view text = data::text_of(*file_);
      while (place_.byte < text.size()) {
        size_t end = separator_.empty() ? text.npos : text.find(separator_, place_.byte);
        const size_t after = end == text.npos ? text.size() : end + separator_.size();
        end = std::min(end, text.size());
        const std::string_view found = text.substr(place_.byte, end - place_.byte);
        place_.byte = after;
        if (!found.empty()) return Document{found, place_};
      }
    }
    file_.reset();
    return std::nullopt;
  }
  std::shared_ptr<const data::Bytes> file() const { return file_; }

 private:
  const std::vector<std::string> paths_;
  const std::string separator_;
  InputPlace place_;
  std::shared_ptr<const data::Bytes> file_;
};

struct Encoded {
  Tokens ids;
  uint64_t id = 0;  // of the document, for held_out
  size_t text_bytes = 0;
  InputPlace end;
};

// Documents of the reader, encoded by threads ahead of time, in their order.
class Encoder {
 public:
  Encoder(Reader& reader, const data::Tokenizer& tokenizer, bool ends, int threads)
      : reader_(reader), tokenizer_(tokenizer), ends_(ends), threads_(threads) {}
  ~Encoder() {
    for (auto& batch : ahead_) batch.wait();
  }
  void seek(const InputPlace& place) {
    for (auto& batch : ahead_) batch.wait();
    ahead_.clear();
    ready_.clear();
    held_.reset();
    reader_.seek(place);
  }
  std::optional<Encoded> next() {
    while (ahead_.size() < static_cast<size_t>(2 * threads_) && start()) {
    }
    if (ready_.empty()) {
      if (ahead_.empty()) return std::nullopt;
      auto batch = ahead_.front().get();
      ahead_.pop_front();
      std::move(batch.begin(), batch.end(), std::back_inserter(ready_));
    }
    Encoded one = std::move(ready_.front());
    ready_.pop_front();
    return one;
  }

 private:
  // hands a batch of one file's documents to a thread; false: the input is at its end
  bool start() {
    std::vector<Document> batch;
    std::shared_ptr<const data::Bytes> file;
    for (size_t bytes = 0; bytes < kBatchBytes;) {
      auto one = held_ ? std::exchange(held_, std::nullopt) : reader_.next();
      if (!one) break;
      if (file && file != reader_.file()) {
        held_ = one;
        break;
      }
      file = reader_.file();
      bytes += one->text.size();
      batch.push_back(*one);
    }
    if (batch.empty()) return false;
    ahead_.push_back(std::async(std::launch::async, [this, file, batch = std::move(batch)] {
      std::vector<Encoded> result;
      for (const Document& document : batch) {
        Encoded& one = result.emplace_back();
        try {
          tokenizer_.encode(document.text, one.ids);
        } catch (const data::UnknownText& error) {
          data::bad_byte(file->path,
                         document.text.data() - data::text_of(*file).data() + error.byte(),
                         error.message(), error.hint());
        }
        if (ends_) one.ids.push_back(*tokenizer_.end_of_text());
        one.id = data::document_id(document.text);
        one.text_bytes = document.text.size();
        one.end = document.end;
      }
      return result;
    }));
    return true;
  }

  Reader& reader_;
  const data::Tokenizer& tokenizer_;
  const bool ends_;
  const int threads_;
  std::optional<Document> held_;  // the first one of another file than the batch before it
  std::deque<std::future<std::vector<Encoded>>> ahead_;
  std::deque<Encoded> ready_;
};

class Tokenization {
 public:
  Tokenization(const TokenizeRequest& request, track::Terminal& terminal);
  void run();

 private:
  struct Shard {
    TokenShard about;
    Tokens ids;
  };
  void claim_folder(const json& plan);
  std::string path(const char* split, int64_t number) const {
    return join_path(request_.output, fmt::format("{}-{:05}.tokens", split, number));
  }
  bool has_validation() const { return request_.validation_fraction > 0; }
  std::optional<InputPlace> verified(int64_t number, const InputPlace& begin);
  std::optional<InputPlace> make(int64_t number, const InputPlace& begin, Encoder& encoder);
  void add(Shard& shard, const Encoded& document) const;
  void count(const char* split, const TokenShard& shard);
  void say(const InputPlace& place);

  TokenizeRequest request_;
  track::Terminal& terminal_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  std::string tokenizer_json_, tokenizer_hash_;
  bool ends_ = false;  // documents end with the end-of-text token
  std::vector<uint64_t> sizes_;
  uint64_t done_bytes_ = 0;  // of text, encoded by this process
  int64_t done_tokens_ = 0;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now(), said_ = began_;
  json index_ = {{"version", 1}};
};

// the tokenizer, with errors that name the option instead of the recipe's field
std::shared_ptr<const data::Tokenizer> chosen_tokenizer(const TokenizeRequest& request, bool ends) {
  std::string alphabet;
  if (request.tokenizer == "char" && request.tokenizer_file.empty()) {
    for (const auto& input : request.inputs) {
      const data::Bytes file = data::read_bytes(input);
      if (file.size == 0) continue;
      const auto own = data::char_tokenizer(data::text_of(file), false, input);
      for (uint32_t id = 0; id < own->vocabulary(); ++id) alphabet += own->decode(&id, 1);
    }
  }
  try {
    return data::make_tokenizer(
        {request.tokenizer, request.tokenizer_file, request.split_pattern, ends}, alphabet,
        fmt::format("{}", fmt::join(request.inputs, ", ")));
  } catch (const Error& error) {
    if (error.code() != Code::kRecipe) throw;
    const bool file = error.where() == "data.tokenizer_file";
    throw Error(Code::kUsage, error.message(), file ? "--tokenizer-file" : "--tokenizer",
                error.hint());
  }
}

Tokenization::Tokenization(const TokenizeRequest& request, track::Terminal& terminal)
    : request_(request), terminal_(terminal) {
  request_.separator = unescaped(request_.separator);
  if (request_.inputs.empty()) throw Error(Code::kUsage, "no text files are given");
  if (request_.shard_tokens < 1)
    throw Error(Code::kUsage, "a shard has at least one token", "--shard-tokens");
  if (!(request_.validation_fraction >= 0 && request_.validation_fraction < 1))
    throw Error(Code::kUsage, "a fraction is at least 0 and below 1", "--validation-fraction");
  ends_ = !request_.separator.empty() || request_.inputs.size() > 1;
  if (has_validation() && !ends_)
    throw Error(Code::kUsage, "whole documents are held out, but nothing separates them",
                "--validation-fraction",
                "Give --document-separator, or hold out the last part in the recipe "
                "(data.validation_fraction).");
  if (request_.threads <= 0)
    request_.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  tokenizer_ = chosen_tokenizer(request_, ends_);
  tokenizer_json_ = tokenizer_->json();
  tokenizer_hash_ = xxh3_128(tokenizer_json_.data(), tokenizer_json_.size());
}

// The folder is new, or one of this very tokenization that was cut.
void Tokenization::claim_folder(const json& plan) {
  const std::string plan_path = join_path(request_.output, "tokenize.json");
  if (!file_exists(plan_path)) {
    for (const auto& name : list_folder(request_.output))
      if (name != ".lock" && name != "tokenizer.json" && name.find(".tmp-") == name.npos)
        throw Error(Code::kUsage, fmt::format("the folder is not empty: it has {}", name),
                    request_.output, "Give a new folder.");
    write_file_durably(join_path(request_.output, "tokenizer.json"), tokenizer_json_);
    write_file_durably(plan_path, plan.dump(2) + "\n");
    return;
  }
  json before;
  try {
    before = json::parse(read_file(plan_path));
  } catch (const json::exception& error) {
    throw Error(Code::kData, "not what a tokenization writes", plan_path, error.what());
  }
  for (const auto& [key, value] : plan.items())
    if (!before.contains(key) || before[key] != value)
      throw Error(Code::kUsage,
                  fmt::format("the folder holds another tokenization: {} was {}, is {}", key,
                              before.contains(key) ? before[key].dump() : "none", value.dump()),
                  request_.output, "Give a new folder, or what that one was made with.");
  for (const auto& name : list_folder(request_.output))
    if (name.find(".tmp-") != name.npos) remove_tree(join_path(request_.output, name));
}

// Where a shard that is there and whole ends.
std::optional<InputPlace> Tokenization::verified(int64_t number, const InputPlace& begin) {
  // the training shard is written last: where it is, its validation shard must be too
  const std::string train = path("train", number), validation = path("validation", number);
  if (!file_exists(train)) return std::nullopt;
  try {
    std::vector<std::pair<const char*, TokenShard>> shards;
    shards.emplace_back("train", data::open_token_shard(train, true));
    if (has_validation())
      shards.emplace_back("validation", data::open_token_shard(validation, true));
    for (const auto& [split, shard] : shards)
      if (shard.tokenizer != tokenizer_hash_ || shard.begin != begin ||
          shard.end != shards[0].second.end)
        throw Error(Code::kData, "does not follow the shard before it", shard.path);
    for (const auto& [split, shard] : shards) count(split, shard);
    return shards[0].second.end;
  } catch (const Error& error) {
    if (error.code() != Code::kData) throw;
    log_warning(fmt::format("{}\n  it is made again", error.what()));
    remove_tree(train);
    remove_tree(validation);
    return std::nullopt;
  }
}

void Tokenization::add(Shard& shard, const Encoded& document) const {
  shard.about.documents.push_back(static_cast<int64_t>(shard.ids.size()));
  shard.about.text_bytes += document.text_bytes;
  shard.ids.insert(shard.ids.end(), document.ids.begin(), document.ids.end());
}

// Makes shard `number` of the documents from `begin` on; nullopt: there are none.
std::optional<InputPlace> Tokenization::make(int64_t number, const InputPlace& begin,
                                             Encoder& encoder) {
  Shard train, validation;
  InputPlace end = begin;
  int64_t tokens = 0;
  while (tokens < request_.shard_tokens) {
    const auto document = encoder.next();
    if (!document) break;
    const bool held =
        has_validation() && data::held_out(document->id, request_.validation_fraction, 0);
    add(held ? validation : train, *document);
    tokens += static_cast<int64_t>(document->ids.size());
    done_bytes_ += document->text_bytes;
    end = document->end;
    say(end);
  }
  if (tokens == 0) return std::nullopt;
  done_tokens_ += tokens;
  auto write = [&](const char* split, Shard& shard) {
    shard.about.path = path(split, number);
    shard.about.tokenizer = tokenizer_hash_;
    shard.about.begin = begin, shard.about.end = end;
    data::write_token_shard(shard.about, shard.ids, tokenizer_->vocabulary());
    count(split, shard.about);
  };
  if (has_validation()) write("validation", validation);
  write("train", train);
  return end;
}

void Tokenization::count(const char* split, const TokenShard& shard) {
  index_[split].push_back(shard.path.substr(shard.path.rfind('/') + 1));
  json& sums = index_["sums"][split];
  auto add = [&](const char* what, int64_t n) {
    sums[what] = (sums.contains(what) ? sums[what].get<int64_t>() : 0) + n;
  };
  add("tokens", shard.count);
  add("documents", static_cast<int64_t>(shard.documents.size()));
  add("text_bytes", static_cast<int64_t>(shard.text_bytes));
}

// a line every ten seconds
void Tokenization::say(const InputPlace& place) {
  const auto now = std::chrono::steady_clock::now();
  if (now - said_ < std::chrono::seconds(10)) return;
  said_ = now;
  const double seconds = std::chrono::duration<double>(now - began_).count();
  terminal_.print(fmt::format("file {} of {}: {:.0f} MB of text at {:.1f} MB/s", place.file + 1,
                              request_.inputs.size(), static_cast<double>(done_bytes_) / 1e6,
                              static_cast<double>(done_bytes_) / 1e6 / seconds));
}

void Tokenization::run() {
  make_folders(request_.output);
  const FolderLock lock(request_.output);
  json inputs = json::array();
  for (const auto& path : request_.inputs)
    inputs.push_back({{"path", path}, {"xxh3", xxh3_128_of_file(path)}});
  claim_folder({{"version", 1},
                {"inputs", inputs},
                {"tokenizer", tokenizer_->kind()},
                {"tokenizer_xxh3", tokenizer_hash_},
                {"document_separator", request_.separator},
                {"shard_tokens", request_.shard_tokens},
                {"validation_fraction", request_.validation_fraction}});

  index_["train"] = index_["validation"] = json::array();
  Reader reader(request_.inputs, request_.separator);
  Encoder encoder(reader, *tokenizer_, ends_, request_.threads);
  InputPlace place;
  int64_t kept = 0;
  bool at_place = true;  // the encoder goes on where the last shard ended
  for (int64_t number = 0;; ++number) {
    if (const auto end = verified(number, place)) {
      place = *end, at_place = false, ++kept;
      continue;
    }
    if (!at_place) encoder.seek(place);
    at_place = true;
    const auto end = make(number, place, encoder);
    if (!end) break;
    place = *end;
  }
  if (index_["train"].empty())
    throw Error(Code::kData, "there is no text in it", request_.inputs[0]);
  write_file_durably(join_path(request_.output, data::kTokensIndex), index_.dump(2) + "\n");

  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  const json& train = index_["sums"]["train"];
  std::string text = fmt::format("{}: {} tokens of {} documents in {} shards", request_.output,
                                 train["tokens"].get<int64_t>(), train["documents"].get<int64_t>(),
                                 index_["train"].size());
  if (has_validation())
    text += fmt::format(", {} tokens of {} documents held out",
                        index_["sums"]["validation"]["tokens"].get<int64_t>(),
                        index_["sums"]["validation"]["documents"].get<int64_t>());
  if (kept > 0) text += fmt::format("; {} shards were there and verified", kept);
  if (done_bytes_ > 0)
    text += fmt::format("; {:.1f} MB/s, {:.2f} bytes a token",
                        static_cast<double>(done_bytes_) / 1e6 / seconds,
                        static_cast<double>(done_bytes_) / static_cast<double>(done_tokens_));
  terminal_.print(text);
}

}  // namespace

void tokenize(const TokenizeRequest& request, track::Terminal& terminal) {
  Tokenization(request, terminal).run();
}

}  // namespace lehr::run
