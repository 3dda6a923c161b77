// A text file as a stream of tokens: one text, whose last part validates, or documents between
// separators, of which some validate as a whole.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/base/error.h"
#include "engine/base/hash.h"
#include "engine/base/random.h"
#include "engine/data/bytes.h"
#include "engine/data/documents.h"
#include "engine/data/fields.h"
#include "engine/data/images.h"
#include "engine/data/order.h"
#include "engine/data/windows.h"

namespace lehr::data {
namespace {

class Text : public WindowDataset {
 public:
  explicit Text(const FieldSource& source);
  int64_t size(Split split) const override {
    const int64_t tokens = streams_[static_cast<int>(split)].size();
    return split == Split::kTrain ? windows_.count : evaluation_windows(tokens, info_.context);
  }

 protected:
  WindowPlace place(Split split, int64_t sample, bool augment, uint64_t seed,
                    int64_t epoch) const override {
    int64_t begin = sample * info_.context;
    if (split == Split::kTrain && augment) {
      // draws of its own beside those of the order of this epoch
      Random random(seed, Stream::kOrder, epoch, 1);
      begin += random.below(static_cast<uint32_t>(windows_.shifts));
    }
    return {&streams_[static_cast<int>(split)], begin};
  }
  std::vector<int64_t> counts() const override {
    std::vector<int64_t> counts(info_.vocabulary);
    count_tokens(streams_[0], 1, counts);
    return counts;
  }

 private:
  void add(Split split, const Bytes& file, const std::vector<std::string_view>& documents);

  std::shared_ptr<const Tokenizer> tokenizer_;
  TokenStream streams_[3];
  TrainingWindows windows_;
};

// where the last `fraction` of a text begins, moved to the next character
size_t tail_of(std::string_view text, double fraction) {
  auto at = static_cast<size_t>(static_cast<double>(text.size()) * (1 - fraction));
  while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xc0) == 0x80) ++at;
  return at;
}

Text::Text(const FieldSource& source) {
  const auto common = source.get<DataFields>();
  const auto files = source.get<FileFields>();
  const auto fields = source.get<TextFields>();
  const auto windows = source.get<WindowFields>();
  if (files.train_file.empty())
    throw Error(Code::kRecipe, "no training text is given", "data.train_file");
  const bool separated = !fields.document_separator.empty();
  info_.layout = TextLayout{fields.document_separator, separated};
  document_mask_ = windows.document_mask;
  if (document_mask_ && !separated)
    throw Error(Code::kRecipe, "documents are masked, but nothing separates them",
                "data.document_mask",
                "Set data.document_separator too, or leave document_mask out.");

  const std::string hint = missing_hint(common.name);
  const Bytes train = read_bytes(files.train_file, hint);
  const std::string_view text = text_of(train);
  const TokenizerChoice choice{fields.tokenizer, fields.tokenizer_file, fields.split_pattern,
                               separated};
  tokenizer_ = make_tokenizer(choice, text, train.path);
  info_.is_text = true;
  info_.vocabulary = tokenizer_->vocabulary();
  info_.context = windows.context;
  info_.tokenizer = tokenizer_->json();
  set_tokenizer(tokenizer_.get());
  std::vector<std::string> hashes = {train.hash,
                                     xxh3_128(info_.tokenizer.data(), info_.tokenizer.size())};

  auto parts_of = [&](const Bytes& file) {
    auto parts = split_documents(text_of(file), fields.document_separator);
    if (separated && parts.size() == 1)
      remarks_.push_back(separator_remark(fields.document_separator, parts[0], file.path));
    return parts;
  };
  auto add_file = [&](Split split, const std::string& path) {
    const Bytes file = read_bytes(path, hint);
    hashes.push_back(file.hash);
    add(split, file, parts_of(file));
  };
  const double fraction = files.validation_file.empty() ? common.validation_fraction : 0;
  if (separated) {
    const auto documents = parts_of(train);
    if (fraction > 0 && documents.size() == 1)
      throw Error(Code::kRecipe, remarks_.back(), "data.document_separator",
                  "Whole documents are held out: name what separates them, leave it out for one "
                  "text, or give data.validation_file.");
    std::vector<uint64_t> ids;
    for (std::string_view document : documents) ids.push_back(document_id(document));
    const auto [kept, held] =
        hold_out(static_cast<int64_t>(documents.size()), ids, fraction,
                 static_cast<uint64_t>(common.split_seed), "data.validation_fraction");
    auto take = [&](Split split, const std::vector<int64_t>& chosen) {
      std::vector<std::string_view> some;
      for (int64_t i : chosen) some.push_back(documents[i]);
      add(split, train, some);
    };
    take(Split::kTrain, kept);
    if (!held.empty()) take(Split::kValidation, held);
  } else {
    const size_t border = tail_of(text, fraction);
    add(Split::kTrain, train, {text.substr(0, border)});
    if (border < text.size()) add(Split::kValidation, train, {text.substr(border)});
  }
  if (!files.validation_file.empty()) add_file(Split::kValidation, files.validation_file);
  if (!files.test_file.empty()) add_file(Split::kTest, files.test_file);

  windows_ = TrainingWindows(streams_[0].size(), info_.context);
  if (windows_.count == 0)
    throw Error(Code::kRecipe,
                fmt::format("{} tokens of training are fewer than one window of {} and its last "
                            "target",
                            streams_[0].size(), info_.context),
                "data.context", "Take a shorter context, or more text.");
  if (fraction > 0 && streams_[1].size() < 2)
    throw Error(Code::kRecipe, "the validation text is too short for one target",
                "data.validation_fraction", "Choose a larger fraction, or 0.");
  info_.fingerprint = fingerprint_of(hashes);
}

void Text::add(Split split, const Bytes& file, const std::vector<std::string_view>& documents) {
  Tokens ids;
  std::vector<int64_t> begins;
  encode_documents(file, documents, *tokenizer_, info_.layout->ends, ids, begins);
  SplitFigures& figures = figures_[static_cast<int>(split)];
  for (std::string_view document : documents) figures.text_bytes += document.size();
  figures.documents += static_cast<int64_t>(documents.size());
  figures.tokens += static_cast<int64_t>(ids.size());
  streams_[static_cast<int>(split)].add(ids, tokenizer_->vocabulary(), begins);
}

}  // namespace

std::shared_ptr<Dataset> open_text(const FieldSource& fields) {
  return std::make_shared<Text>(fields);
}

}  // namespace lehr::data
