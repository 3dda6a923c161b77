// Documents are read in order, encoded in batches by several threads, and put into shards in order:
// where a shard ends depends on the documents alone. Each shard says where in the input it ends, so
// that whole ones are skipped and the first that is missing is where work goes on.
#include "engine/run/tokenize.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/base/cores.h"
#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/data/bytes.h"
#include "engine/data/document_encoder.h"
#include "engine/data/documents.h"
#include "engine/data/order.h"
#include "engine/data/token_file.h"
#include "engine/data/tokenizer.h"
#include "engine/data/windows.h"
#include "engine/run/stop.h"

namespace lehr::run {

using data::InputPlace;
using data::Tokens;
using data::TokenShard;
using nlohmann::json;

namespace {

constexpr int kPlanVersion = 2;

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

// What an input is known by when the same command continues: of a large one, pieces of it.
json identity_of(const std::string& path) {
  constexpr uint64_t kPiece = 1 << 16, kPieces = 64;
  data::ByteStream readable(path);  // or says why not
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto size = static_cast<uint64_t>(file.tellg());
  const uint64_t pieces = std::min(kPieces, (size + kPiece - 1) / kPiece);
  std::vector<char> piece(kPiece);
  Xxh3 hash;
  for (uint64_t i = 0; i < pieces; ++i) {
    const uint64_t at = size <= kPiece * kPieces ? i * kPiece : (size - kPiece) * i / (pieces - 1);
    file.clear();
    file.seekg(static_cast<std::streamoff>(at));
    file.read(piece.data(), kPiece);
    hash.update(piece.data(), static_cast<size_t>(file.gcount()));
  }
  return {{"path", path}, {"bytes", size}, {"xxh3", hash.digest()}};
}

class Tokenization {
 public:
  Tokenization(const TokenizeRequest& request, track::Terminal& terminal);
  void run();

 private:
  // of one split, while it is written
  struct Side {
    data::TokenShardWriter writer;
    TokenShard about;
  };
  struct Figures {
    int64_t tokens = 0, documents = 0, text_bytes = 0;
  };
  // shard `number`, of both splits
  struct Made {
    InputPlace begin, end;
    Figures train, validation;
    bool counted = false;
  };
  json plan(int version) const;
  bool is_ours();
  void claim_folder(const FolderLock& lock);
  std::string path(const char* split, int64_t number) const {
    return join_path(request_.output, fmt::format("{}-{:05}.tokens", split, number));
  }
  bool has_validation() const { return request_.validation_fraction > 0; }
  std::optional<Made> there(int64_t number, const InputPlace& begin) const;
  std::optional<Made> make(int64_t number, const InputPlace& begin, data::DocumentEncoder& encoder);
  std::unique_ptr<Side> begin_side(const char* split, int64_t number) const;
  Figures finish_side(Side& side, const Made& made) const;
  void count(const Tokens& ids) {
    for (uint32_t id : ids) ++counts_[id];
  }
  void count_kept(data::DocumentEncoder& encoder);
  bool is_complete() const;
  json index() const;
  void say(const InputPlace& place);
  void conclude(int64_t kept) const;

  TokenizeRequest request_;
  track::Terminal& terminal_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  std::string tokenizer_json_, tokenizer_hash_;
  bool ends_ = false;        // documents end with the end-of-text token
  uint64_t done_bytes_ = 0;  // of text, encoded by this process
  int64_t done_tokens_ = 0;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now(), said_ = began_;
  std::vector<Made> made_;
  std::vector<int64_t> counts_;  // of ids in the training shards
};

// the tokenizer, with errors that name the option instead of the recipe's field
std::shared_ptr<const data::Tokenizer> chosen_tokenizer(const TokenizeRequest& request, bool ends) {
  std::string alphabet;
  if (request.tokenizer == "char" && request.tokenizer_file.empty()) {
    data::Alphabet characters;
    const auto whole = data::char_tokenizer("a", false, "");  // cuts between characters
    data::DocumentStream texts(request.inputs, "", *whole);
    while (const auto piece = texts.next())
      characters.add(piece->text, request.inputs[piece->begin.file], piece->begin.byte);
    for (uint32_t code : characters.codes()) data::append_utf8(code, alphabet);
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
  if (request_.threads <= 0) request_.threads = static_cast<int>(usable_cores());
  tokenizer_ = chosen_tokenizer(request_, ends_);
  tokenizer_json_ = tokenizer_->json();
  tokenizer_hash_ = xxh3_128(tokenizer_json_.data(), tokenizer_json_.size());
  counts_.resize(tokenizer_->vocabulary());
}

// What is asked for, in the words of a version of tokenize.json.
json Tokenization::plan(int version) const {
  json inputs = json::array();
  for (const auto& path : request_.inputs)
    inputs.push_back(version == 1 ? json{{"path", path}, {"xxh3", xxh3_128_of_file(path)}}
                                  : identity_of(path));
  return {{"version", version},
          {"inputs", inputs},
          {"tokenizer", tokenizer_->kind()},
          {"tokenizer_xxh3", tokenizer_hash_},
          {"document_separator", request_.separator},
          {"shard_tokens", request_.shard_tokens},
          {"validation_fraction", request_.validation_fraction}};
}

// False: the folder is new. True: it is one of this very tokenization. Throws for any other.
bool Tokenization::is_ours() {
  const std::string plan_path = join_path(request_.output, "tokenize.json");
  const std::string tokenizer_path = join_path(request_.output, "tokenizer.json");
  if (!file_exists(plan_path)) {
    for (const auto& name : list_folder(request_.output))
      if (name != ".lock" && name != "tokenizer.json" && name.find(".tmp-") == name.npos)
        throw Error(Code::kUsage, fmt::format("the folder is not empty: it has {}", name),
                    request_.output, "Give a new folder.");
    return false;
  }
  json before;
  try {
    before = json::parse(read_file(plan_path));
    // another release may write the same tokenizer otherwise
    if (before.at("tokenizer_xxh3") != tokenizer_hash_ && file_exists(tokenizer_path)) {
      const std::string written = read_file(tokenizer_path);
      if (data::same_tokenizer(written, tokenizer_json_)) {
        tokenizer_json_ = written;
        tokenizer_hash_ = xxh3_128(written.data(), written.size());
      }
    }
  } catch (const json::exception& error) {
    throw Error(Code::kData, "not what a tokenization writes", plan_path, error.what());
  }
  const json wanted = plan(before.value("version", kPlanVersion));
  for (const auto& [key, value] : wanted.items())
    if (!before.contains(key) || before[key] != value)
      throw Error(Code::kUsage,
                  fmt::format("the folder holds another tokenization: {} was {}, is {}", key,
                              before.contains(key) ? before[key].dump() : "none", value.dump()),
                  request_.output, "Give a new folder, or what that one was made with.");
  return true;
}

void Tokenization::claim_folder(const FolderLock&) {
  if (!is_ours()) {
    const std::string text = plan(kPlanVersion).dump(2) + "\n";
    write_file_durably(join_path(request_.output, "tokenizer.json"), tokenizer_json_);
    write_file_durably(join_path(request_.output, "tokenize.json"), text);
    return;
  }
  for (const auto& name : list_folder(request_.output))
    if (name.find(".tmp-") != name.npos) remove_tree(join_path(request_.output, name));
}

// A shard that is there, by its header; its bytes are verified once, before the folder is complete.
std::optional<Tokenization::Made> Tokenization::there(int64_t number,
                                                      const InputPlace& begin) const {
  // the training shard is written last: where it is, its validation shard must be too
  const std::string train = path("train", number), validation = path("validation", number);
  if (!file_exists(train)) return std::nullopt;
  try {
    Made made;
    auto look = [&](const std::string& file) {
      const TokenShard shard = data::open_token_shard(file);
      if (shard.tokenizer != tokenizer_hash_ || shard.begin != begin ||
          (file != train && shard.end != made.end))
        throw Error(Code::kData, "does not follow the shard before it", file);
      made.begin = shard.begin, made.end = shard.end;
      return Figures{shard.count, static_cast<int64_t>(shard.documents.size()),
                     static_cast<int64_t>(shard.text_bytes)};
    };
    made.train = look(train);
    if (has_validation()) made.validation = look(validation);
    return made;
  } catch (const Error& error) {
    if (error.code() != Code::kData) throw;
    log_warning(fmt::format("{}\n  it is made again", error.what()));
    remove_tree(train);
    remove_tree(validation);
    return std::nullopt;
  }
}

std::unique_ptr<Tokenization::Side> Tokenization::begin_side(const char* split,
                                                             int64_t number) const {
  return std::unique_ptr<Side>(new Side{{path(split, number), tokenizer_->vocabulary()}, {}});
}

Tokenization::Figures Tokenization::finish_side(Side& side, const Made& made) const {
  side.about.tokenizer = tokenizer_hash_;
  side.about.begin = made.begin, side.about.end = made.end;
  side.writer.finish(side.about);
  return {side.about.count, side.writer.documents(), static_cast<int64_t>(side.about.text_bytes)};
}

// Makes shard `number` of the documents from `begin` on; nullopt: there are none.
std::optional<Tokenization::Made> Tokenization::make(int64_t number, const InputPlace& begin,
                                                     data::DocumentEncoder& encoder) {
  std::unique_ptr<Side> train, validation;
  Made made;
  made.begin = made.end = begin;
  made.counted = true;
  Tokens waiting;  // where documents are held out, those of the one whose side is not known yet
  uint64_t waiting_bytes = 0;
  int64_t tokens = 0;
  for (bool within = false; within || tokens < request_.shard_tokens;) {
    auto piece = encoder.next();
    if (!piece) break;
    if (!train) {
      train = begin_side("train", number);
      if (has_validation()) validation = begin_side("validation", number);
    }
    within = !piece->is_last;
    tokens += static_cast<int64_t>(piece->ids.size());
    done_bytes_ += piece->text_bytes;
    made.end = piece->end;
    Side* side = train.get();
    if (has_validation()) {
      waiting.insert(waiting.end(), piece->ids.begin(), piece->ids.end());
      waiting_bytes += piece->text_bytes;
      if (within) continue;
      if (data::held_out(piece->document, request_.validation_fraction, 0)) side = validation.get();
      piece->ids = std::exchange(waiting, {});
      piece->text_bytes = std::exchange(waiting_bytes, 0);
      piece->is_first = true;
    }
    if (piece->is_first) side->writer.begin_document();
    side->writer.append(piece->ids);
    side->about.text_bytes += piece->text_bytes;
    if (side == train.get()) count(piece->ids);
    say(made.end);
  }
  if (!train) return std::nullopt;
  done_tokens_ += tokens;
  if (validation) made.validation = finish_side(*validation, made);
  made.train = finish_side(*train, made);
  return made;
}

// Shards of earlier starts are read once, by all threads: verified and counted. What is damaged is
// made again.
void Tokenization::count_kept(data::DocumentEncoder& encoder) {
  using Counts = std::vector<int64_t>;
  std::deque<std::pair<int64_t, std::future<Counts>>> ahead;
  auto start = [&](int64_t number) {
    ahead.emplace_back(number, std::async(std::launch::async, [this, number] {
                         Counts counts(counts_.size());
                         if (has_validation())
                           data::open_token_shard(path("validation", number), true);
                         const TokenShard shard =
                             data::open_token_shard(path("train", number), true);
                         data::TokenStream stream;
                         stream.add(shard);
                         data::count_tokens(stream, 1, counts);
                         return counts;
                       }));
  };
  auto finish = [&] {
    const int64_t number = ahead.front().first;
    Made& made = made_[static_cast<size_t>(number)];
    try {
      const Counts counts = ahead.front().second.get();
      for (size_t id = 0; id < counts.size(); ++id) counts_[id] += counts[id];
    } catch (const Error& error) {
      if (error.code() != Code::kData) throw;
      log_warning(fmt::format("{}\n  it is made again", error.what()));
      remove_tree(path("train", number));
      remove_tree(path("validation", number));
      encoder.seek(made.begin);
      made = make(number, made.begin, encoder).value();
    }
    ahead.pop_front();
  };
  for (size_t number = 0; number < made_.size(); ++number) {
    if (made_[number].counted) continue;
    start(static_cast<int64_t>(number));
    if (ahead.size() >= static_cast<size_t>(request_.threads)) finish();
  }
  while (!ahead.empty()) finish();
}

json Tokenization::index() const {
  json index = {{"version", 1}, {"train", json::array()}, {"validation", json::array()}};
  auto add = [&](const char* split, int64_t number, const Figures& figures) {
    const std::string file = path(split, number);
    index[split].push_back(file.substr(file.rfind('/') + 1));
    json& sums = index["sums"][split];
    auto sum = [&](const char* what, int64_t n) {
      sums[what] = (sums.contains(what) ? sums[what].get<int64_t>() : 0) + n;
    };
    sum("tokens", figures.tokens);
    sum("documents", figures.documents);
    sum("text_bytes", figures.text_bytes);
  };
  for (size_t number = 0; number < made_.size(); ++number) {
    if (has_validation()) add("validation", static_cast<int64_t>(number), made_[number].validation);
    add("train", static_cast<int64_t>(number), made_[number].train);
  }
  index["counts"] = counts_;
  return index;
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

// An index stands there and so do all shards that it names.
bool Tokenization::is_complete() const {
  const std::string file = join_path(request_.output, data::kTokensIndex);
  if (!file_exists(file)) return false;
  InputPlace place;
  const auto folder = data::read_token_folder(request_.output);
  for (size_t number = 0; number < folder.train.size(); ++number) {
    const auto made = there(static_cast<int64_t>(number), place);
    if (!made) return false;
    place = made->end;
  }
  return true;
}

void Tokenization::run() {
  is_ours();  // or it is refused before anything is written into it
  make_folders(request_.output);
  const FolderLock lock(request_.output);
  claim_folder(lock);
  if (is_complete()) {
    terminal_.print(fmt::format("{}: is complete already; without its {} every byte is verified",
                                request_.output, data::kTokensIndex));
    return;
  }
  remove_tree(join_path(request_.output, data::kTokensIndex));

  data::DocumentStream documents(request_.inputs, request_.separator, *tokenizer_);
  data::DocumentEncoder encoder(documents, *tokenizer_, ends_, request_.threads);
  InputPlace place;
  int64_t kept = 0;
  bool at_place = true;  // the encoder goes on where the last shard ended
  for (;;) {
    const auto number = static_cast<int64_t>(made_.size());
    auto made = there(number, place);
    if (made) {
      at_place = false, ++kept;
    } else {
      if (!at_place) encoder.seek(place);
      at_place = true;
      made = make(number, place, encoder);
    }
    if (!made) break;
    place = made->end;
    made_.push_back(*made);
  }
  if (made_.empty()) throw Error(Code::kData, "there is no text in it", request_.inputs[0]);
  if (const auto& files = documents.not_separated(); !files.empty())
    log_warning(data::separator_remark(
        request_.separator, documents.sample(),
        files.size() == 1 ? files[0] : fmt::format("{} and {} more", files[0], files.size() - 1)));
  count_kept(encoder);
  write_file_durably(join_path(request_.output, data::kTokensIndex), index().dump(2) + "\n");
  conclude(kept);
}

void Tokenization::conclude(int64_t kept) const {
  Figures train, validation;
  for (const Made& made : made_) {
    train.tokens += made.train.tokens, train.documents += made.train.documents;
    validation.tokens += made.validation.tokens, validation.documents += made.validation.documents;
  }
  std::string text = fmt::format("{}: {} tokens of {} documents in {} shards", request_.output,
                                 train.tokens, train.documents, made_.size());
  if (has_validation())
    text += fmt::format(", {} tokens of {} documents held out", validation.tokens,
                        validation.documents);
  if (kept > 0) text += fmt::format("; {} shards were there and verified", kept);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  if (done_bytes_ > 0)
    text += fmt::format("; {:.1f} MB/s, {:.2f} bytes a token",
                        static_cast<double>(done_bytes_) / 1e6 / seconds,
                        static_cast<double>(done_bytes_) / static_cast<double>(done_tokens_));
  terminal_.print(text);
}

}  // namespace

void tokenize(const TokenizeRequest& request, track::Terminal& terminal) {
  const LeaveWhenAsked leaves("; the shards that are done stay. The same command continues.");
  Tokenization(request, terminal).run();
}

}  // namespace lehr::run
