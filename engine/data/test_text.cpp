#include "engine/data/test_text.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/data/bytes.h"
#include "engine/data/shard_reader.h"
#include "engine/data/windows.h"

namespace lehr::data {
namespace {

class TestWindows : public WindowDataset {
 public:
  explicit TestWindows(const TestText& request);
  int64_t size(Split split) const override {
    return split == Split::kTest ? streams_.windows() : 0;
  }

 protected:
  WindowPlace place(Split, int64_t sample, bool, uint64_t, int64_t) const override {
    return streams_.at(sample);
  }
  std::vector<int64_t> counts() const override { return std::vector<int64_t>(info_.vocabulary); }

 private:
  void read_texts(const TestText& request, const Tokenizer& tokenizer);

  EvaluationStreams streams_;
};

TestWindows::TestWindows(const TestText& request) {
  info_.is_text = true;
  info_.vocabulary = request.vocabulary, info_.context = request.context;
  info_.tokenizer = request.tokenizer, info_.layout = request.layout;
  document_mask_ = request.document_mask;
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!request.tokenizer.empty()) tokenizer = parse_tokenizer(request.tokenizer, "tokenizer.json");
  set_tokenizer(tokenizer.get());

  const auto shards = std::count_if(request.paths.begin(), request.paths.end(), is_token_shards);
  if (shards == 0) {
    if (tokenizer == nullptr || !request.layout)
      throw Error(Code::kUsage,
                  tokenizer ? "the model was trained on token shards, of texts that were separated "
                              "in more than one way or in one that is not known"
                            : "the model has no tokenizer",
                  request.paths.at(0),
                  "Make token shards of the text as those of the training were made (lehr tokenize "
                  "--tokenizer-file ... --document-separator ...), and give their folder.");
    read_texts(request, *tokenizer);
  } else if (shards == static_cast<int64_t>(request.paths.size())) {
    ShardReader reader(request.tokenizer);
    for (const auto& path : request.paths) {
      const TokenFolder folder = token_folder(path);
      TokenStream stream;
      reader.read(folder, folder.train, stream, figures_[2]);
      streams_.add(std::move(stream), info_.context);
    }
    if (reader.vocabulary() > request.vocabulary)
      throw Error(Code::kData,
                  fmt::format("its ids are below {}, and the model's below {}", reader.vocabulary(),
                              request.vocabulary),
                  request.paths.at(0), "Make all of them with one tokenizer.");
  } else {
    throw Error(Code::kUsage, "texts and token shards are not evaluated together",
                request.paths.at(0), "Give one kind at a time.");
  }
  if (streams_.windows() == 0)
    throw Error(Code::kData, "the text is too short for one target", request.paths.at(0));
}

void TestWindows::read_texts(const TestText& request, const Tokenizer& tokenizer) {
  const TextLayout& layout = *request.layout;
  if (request.paths.size() > 1 && !layout.ends)
    throw Error(Code::kUsage, "the model was trained on one text, and these are several",
                request.paths.at(1), "Give one file at a time.");
  Tokens ids;
  std::vector<int64_t> begins;
  for (const auto& path : request.paths) {
    const Bytes file = read_bytes(path, "Name a text file, gzip or not, or token shards.");
    const auto documents = split_documents(text_of(file), layout.separator);
    if (!layout.separator.empty() && documents.size() == 1)
      remarks_.push_back(separator_remark(layout.separator, documents[0], path));
    encode_documents(file, documents, tokenizer, layout.ends, ids, begins);
    for (std::string_view document : documents) figures_[2].text_bytes += document.size();
    figures_[2].documents += static_cast<int64_t>(documents.size());
  }
  figures_[2].tokens = static_cast<int64_t>(ids.size());
  TokenStream stream;
  stream.add(ids, tokenizer.vocabulary(), begins);
  streams_.add(std::move(stream), info_.context);
}

}  // namespace

std::shared_ptr<Dataset> open_test_text(const TestText& request) {
  return std::make_shared<TestWindows>(request);
}

}  // namespace lehr::data
