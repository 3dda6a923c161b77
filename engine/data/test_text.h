// Files under a language model that is evaluated, as its training reads its own test split.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/data/dataset.h"
#include "engine/data/documents.h"

namespace lehr::data {

struct TestText {
  // texts (several where documents end in tokens), or token shards: folders and .tokens files
  StringList paths;
  std::string tokenizer;             // json(); "": shards only, of whatever tokenizer
  std::optional<TextLayout> layout;  // of texts; nullopt: not known, so shards only
  int64_t vocabulary = 0, context = 0;
  bool document_mask = false;
};
// A data set of one split, the test. Throws Error{kData}, and Error{kUsage} for paths that cannot
// be read so, with what to give instead.
std::shared_ptr<Dataset> open_test_text(const TestText& request);

}  // namespace lehr::data
