// The source text: windows, documents and splits, and that nothing is lost or seen twice.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "engine/data/dataset.h"
#include "engine/data/documents.h"
#include "engine/data/loader.h"
#include "engine/data/tokenizer.h"
#include "engine/data/windows.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

// letters that are the same in every run
std::string letters(size_t n, uint64_t seed = 1) {
  Random random(seed, Stream::kTest, 7);
  std::string text(n, ' ');
  for (char& c : text) c = static_cast<char>('a' + random.below(26));
  return text;
}

FixedFields text_fields(const std::string& file, int64_t context, double fraction = 0.1) {
  return FixedFields({{"data.source", std::string("text")},
                      {"data.train_file", file},
                      {"data.tokenizer", std::string("byte")},
                      {"data.validation_fraction", fraction},
                      {"data.context", context}});
}

Batch filled(const Dataset& set, Split split, bool augment = false, uint64_t seed = 0,
             int64_t epoch = 0) {
  std::vector<int64_t> samples(set.size(split));
  std::iota(samples.begin(), samples.end(), 0);
  Batch batch = set.allocate(static_cast<int64_t>(samples.size()));
  set.fill(split, samples.data(), 0, static_cast<int64_t>(samples.size()), augment, seed, epoch,
           batch);
  return batch;
}

std::vector<int64_t> flat(const at::Tensor& t) {
  const at::Tensor c = t.contiguous();
  return {c.data_ptr<int64_t>(), c.data_ptr<int64_t>() + c.numel()};
}

std::string bytes_of(const std::vector<int64_t>& ids) { return {ids.begin(), ids.end()}; }

TEST(Text, TrainingWindowsTileTheTextAndMoveWithTheEpoch) {
  TempFolder folder;
  const std::string text = letters(1000);
  auto set = open_dataset(text_fields(folder.write("t.txt", text), 16, 0));
  ASSERT_EQ(set->size(Split::kTrain), 1000 / 16 - 1);
  std::set<int64_t> shifts;
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    const Batch batch = filled(*set, Split::kTrain, true, 3, epoch);
    const std::string inputs = bytes_of(flat(batch.inputs)),
                      targets = bytes_of(flat(batch.targets));
    const size_t shift = text.find(inputs);
    ASSERT_NE(shift, text.npos);  // one stretch of the text: nothing lost between windows
    EXPECT_LT(shift, 16u);
    EXPECT_EQ(text.substr(shift + 1, targets.size()), targets);
    shifts.insert(static_cast<int64_t>(shift));
    EXPECT_TRUE(at::equal(batch.inputs, filled(*set, Split::kTrain, true, 3, epoch).inputs));
  }
  EXPECT_GE(shifts.size(), 10u);
  EXPECT_NE(text.find(bytes_of(flat(filled(*set, Split::kTrain, true, 4, 0).inputs))),
            text.find(bytes_of(flat(filled(*set, Split::kTrain, true, 3, 0).inputs))));
}

TEST(Text, TheLastWindowFitsAtEveryShift) {
  for (int64_t context : {1, 2, 3, 7, 16})
    for (int64_t tokens = 0; tokens < 80; ++tokens) {
      const TrainingWindows windows(tokens, context);
      EXPECT_EQ(windows.count == 0, tokens < context + 1);
      if (windows.count == 0) continue;
      const int64_t last = (windows.count - 1) * context + windows.shifts - 1;
      EXPECT_LE(last + context + 1, tokens) << tokens << " " << context;
      EXPECT_GE(windows.shifts, 1);
      EXPECT_LE(windows.shifts, context);
      // no more than two windows' worth is ever left out
      EXPECT_GT(windows.count * context + 2 * context, tokens - 1);
    }
}

TEST(Text, EvaluationCoversTheWholeSplitOnce) {
  TempFolder folder;
  const std::string text = letters(1000);
  for (int64_t context : {1, 7, 16, 99, 100, 2000}) {
    auto fields = text_fields(folder.write("t.txt", letters(3000, 2)), context)
                      .set("data.validation_file", folder.write("v.txt", text));
    auto set = open_dataset(fields);
    const Batch batch = filled(*set, Split::kValidation);
    std::string inputs, targets;
    const auto in = flat(batch.inputs), out = flat(batch.targets);
    for (size_t i = 0; i < in.size(); ++i) {
      if (out[i] == -100) continue;
      inputs += static_cast<char>(in[i]), targets += static_cast<char>(out[i]);
    }
    EXPECT_EQ(inputs, text.substr(0, 999)) << context;
    EXPECT_EQ(targets, text.substr(1)) << context;
    // whatever the epoch or a request to augment: evaluation has no shift
    EXPECT_TRUE(at::equal(filled(*set, Split::kValidation, true, 5, 6).inputs, batch.inputs));
  }
}

TEST(Text, TheLastPartValidates) {
  TempFolder folder;
  const std::string text = letters(997);
  auto set = open_dataset(text_fields(folder.write("t.txt", text), 8));
  const size_t border = 897;  // 90 % of it, rounded down
  const auto figures = nlohmann::json::parse(set->statistics());
  EXPECT_EQ(figures["tokens"]["train"], 897);
  EXPECT_EQ(figures["tokens"]["validation"], 100);
  const auto last = flat(filled(*set, Split::kValidation).inputs);
  EXPECT_EQ(bytes_of({last.begin(), last.begin() + 99}), text.substr(border, 99));
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const Batch batch = filled(*set, Split::kTrain, true, 1, epoch);
    const std::string inputs = bytes_of(flat(batch.inputs));
    EXPECT_LT(text.find(inputs) + inputs.size(), border);  // and a target after it
  }
  EXPECT_EQ(set->size(Split::kTest), 0);
}

TEST(Text, NoCharacterIsCutByTheBorderOfTheSplits) {
  TempFolder folder;
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";  // 1, 2, 3, 4 bytes
  for (double fraction : {0.1, 0.1004, 0.1008, 0.1013, 0.333, 0.5}) {
    auto fields = text_fields(folder.write("t.txt", text), 8, fraction)
                      .set("data.tokenizer", std::string("char"));
    auto set = open_dataset(fields);
    EXPECT_EQ(set->info().vocabulary, 4);
    const auto figures = nlohmann::json::parse(set->statistics());
    EXPECT_EQ(figures["tokens"]["train"].get<int>() + figures["tokens"]["validation"].get<int>(),
              800);
  }
}

struct Documents {
  std::vector<std::string> texts;
  std::string file;
};
Documents some_documents(int n) {
  Documents all;
  Random random(5, Stream::kTest, 1);
  for (int i = 0; i < n; ++i) {
    all.texts.push_back(letters(1 + random.below(40), 100 + static_cast<uint64_t>(i)));
    all.file += all.texts.back() + "\n\n";
  }
  return all;
}

// the documents of a split, read back from its windows
std::vector<std::string> read_back(const Dataset& set, Split split) {
  const Batch batch = filled(set, split);
  std::vector<std::string> texts(1);
  const auto inputs = flat(batch.inputs), targets = flat(batch.targets);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (targets[i] == -100) continue;
    if (inputs[i] == 256)
      texts.emplace_back();
    else
      texts.back() += static_cast<char>(inputs[i]);
  }
  return texts;
}

TEST(Text, HoldsOutWholeDocumentsByTheirText) {
  TempFolder folder;
  Documents all = some_documents(400);
  for (int i = 0; i < 100; ++i) all.file += all.texts[i] + "\n\n";  // a quarter is there twice
  auto fields = text_fields(folder.write("t.txt", all.file), 1, 0.3)
                    .set("data.document_separator", std::string("\n\n"));
  auto set = open_dataset(fields);
  EXPECT_EQ(set->info().vocabulary, 257);
  auto validation = read_back(*set, Split::kValidation);
  const std::set<std::string> held(validation.begin(), validation.end());
  EXPECT_GT(held.size(), 80u);
  EXPECT_LT(held.size(), 160u);
  std::map<std::string, int> seen;
  for (const auto& text : validation) ++seen[text];
  // all but the first token is a target, so the very first inputs come from the first document
  for (const auto& text : read_back(*set, Split::kTrain)) {
    EXPECT_FALSE(held.contains(text) && text.size() > 3) << text;
    ++seen[text];
  }
  int missing = 0;
  for (size_t i = 0; i < all.texts.size(); ++i) missing += seen[all.texts[i]] != (i < 100 ? 2 : 1);
  EXPECT_LE(missing, 8);  // one-letter texts that are alike, and what the windows leave at the end
  // documents that are added move nobody
  auto more = text_fields(folder.write("m.txt", "first\n\n" + all.file + "last"), 1, 0.3)
                  .set("data.document_separator", std::string("\n\n"));
  auto larger = read_back(*open_dataset(more), Split::kValidation);
  const std::set<std::string> still(larger.begin(), larger.end());
  for (const auto& text : held) EXPECT_TRUE(still.contains(text)) << text;
}

TEST(Text, ADocumentMaskKeepsTargetsWithinDocuments) {
  TempFolder folder;
  const Documents all = some_documents(100);
  auto fields = text_fields(folder.write("t.txt", all.file), 24, 0)
                    .set("data.document_separator", std::string("\n\n"));
  auto open = open_dataset(fields);
  auto masked = open_dataset(fields.set("data.document_mask", true));
  EXPECT_FALSE(filled(*open, Split::kTrain).segments.defined());
  for (bool augment : {false, true}) {
    const Batch with = filled(*masked, Split::kTrain, augment, 1, 2);
    const Batch without = filled(*open, Split::kTrain, augment, 1, 2);
    EXPECT_TRUE(at::equal(with.inputs, without.inputs));
    const auto inputs = flat(with.inputs), targets = flat(with.targets),
               segments = flat(with.segments), unmasked = flat(without.targets);
    int64_t crossings = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      // a document's last token is its end-of-text; what follows belongs to another one
      EXPECT_EQ(targets[i], inputs[i] == 256 ? -100 : unmasked[i]);
      crossings += inputs[i] == 256;
      if (i % 24 > 0) {
        EXPECT_EQ(segments[i] - segments[i - 1], inputs[i - 1] == 256 ? 1 : 0);
      }
    }
    EXPECT_GT(crossings, 50);
  }
  EXPECT_TRUE(holds(error_of([&] {
                      open_dataset(
                          text_fields(folder.path("t.txt"), 8).set("data.document_mask", true));
                    }).where(),
                    "data.document_mask"));
}

TEST(Text, GivesOneStreamForAnyThreadsRanksAndRestarts) {
  TempFolder folder;
  std::shared_ptr<Dataset> set =
      open_dataset(text_fields(folder.write("t.txt", some_documents(300).file), 16, 0)
                       .set("data.document_separator", std::string("\n\n"))
                       .set("data.document_mask", true));
  auto read = [&](int threads, int rank, int world, int64_t from, int steps) {
    LoaderOptions o;
    o.global_batch = 8, o.micro_batch = 3, o.seed = 9;
    o.threads = threads, o.rank = rank, o.world = world;
    Loader loader(set, o);
    loader.seek(from);
    std::vector<std::vector<int64_t>> result;
    for (int i = 0; i < steps; ++i) {
      std::vector<int64_t> all;
      for (const Batch& batch : loader.next().micro)
        for (const auto* t : {&batch.inputs, &batch.targets, &batch.segments})
          for (int64_t row = 0; row < batch.size(); ++row) {
            const auto values = flat((*t)[row]);
            all.insert(all.end(), values.begin(), values.end());
          }
      std::sort(all.begin(), all.end());
      result.push_back(all);
    }
    return result;
  };
  const auto one = read(0, 0, 1, 0, 120);
  EXPECT_EQ(read(3, 0, 1, 0, 120), one);
  std::vector<std::vector<int64_t>> two = read(1, 0, 2, 0, 120);
  const auto other = read(2, 1, 2, 0, 120);
  for (size_t i = 0; i < two.size(); ++i) {
    two[i].insert(two[i].end(), other[i].begin(), other[i].end());
    std::sort(two[i].begin(), two[i].end());
  }
  EXPECT_EQ(two, one);
  const auto later = read(2, 0, 1, 8 * 20, 20);
  EXPECT_EQ(later, decltype(later)(one.begin() + 20, one.begin() + 40));
}

TEST(Text, StatisticsAreThoseOfTheText) {
  TempFolder folder;
  auto set =
      open_dataset(text_fields(folder.write("t.txt", "aabbaabb" + std::string(8, 'c')), 4, 0.5)
                       .set("data.tokenizer", std::string("char")));
  const auto figures = nlohmann::json::parse(set->statistics());
  EXPECT_EQ(figures["vocabulary"], 3);
  EXPECT_DOUBLE_EQ(figures["unigram_entropy"].get<double>(), std::log(2));
  EXPECT_EQ(figures["tokens_seen"], 2);
  EXPECT_EQ(figures["bytes"]["validation"], 8);
  EXPECT_EQ(flat(set->info().token_bytes), (std::vector<int64_t>{1, 1, 1}));
  // an end-of-text token stands for no byte; two of three bytes are one character
  auto two = open_dataset(text_fields(folder.write("d.txt", "\xc3\xa9z|\xc3\xa9z|\xc3\xa9z|"), 4, 0)
                              .set("data.tokenizer", std::string("char"))
                              .set("data.document_separator", std::string("|")));
  EXPECT_EQ(flat(two->info().token_bytes), (std::vector<int64_t>{1, 1, 2, 0}));
  EXPECT_TRUE(two->info().is_text);
  EXPECT_EQ(parse_tokenizer(two->info().tokenizer, "info")->vocabulary(), two->info().vocabulary);
  EXPECT_NE(set->info().fingerprint, two->info().fingerprint);
}

TEST(Text, NamesTheByteThatHasNoToken) {
  TempFolder folder;
  const std::string train = folder.write("t.txt", letters(100));
  auto fields = text_fields(train, 8, 0).set("data.tokenizer", std::string("char"));
  const Error unknown = error_of([&] {
    open_dataset(
        FixedFields(fields).set("data.validation_file", folder.write("v.txt", "abc\xc3\xa9")));
  });
  EXPECT_EQ(unknown.code(), Code::kData);
  EXPECT_TRUE(holds(unknown.where(), "v.txt at byte 3")) << unknown.what();
  EXPECT_TRUE(holds(unknown.what(), "U+00E9")) << unknown.what();
  const Error broken = error_of([&] {
    open_dataset(text_fields(folder.write("b.txt", letters(50) + "\xff" + letters(50)), 8, 0)
                     .set("data.tokenizer", std::string("char")));
  });
  EXPECT_TRUE(holds(broken.where(), "b.txt at byte 50")) << broken.what();
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(text_fields(train, 100, 0)); }).where(), "data.context"));
  EXPECT_TRUE(holds(error_of([&] {
                      open_dataset(text_fields(train, 8).set("data.tokenizer", std::string("bpe")));
                    }).where(),
                    "data.tokenizer_file"));
}

TEST(Text, ReadsGzip) {
  TempFolder folder;
  const std::string text = letters(500);
  auto plain = open_dataset(text_fields(folder.write("t.txt", text), 8));
  auto packed = open_dataset(text_fields(folder.write("t.txt.gz", gzip(text)), 8));
  EXPECT_TRUE(
      at::equal(filled(*plain, Split::kTrain).inputs, filled(*packed, Split::kTrain).inputs));
}

TEST(Text, RawTokensAreTheInputs) {
  TempFolder folder;
  auto set = open_dataset(text_fields(folder.write("t.txt", letters(500)), 8));
  const Batch batch = filled(*set, Split::kValidation);
  std::vector<int64_t> samples(set->size(Split::kValidation));
  std::iota(samples.begin(), samples.end(), 0);
  const RawBatch raw = set->raw(Split::kValidation, samples);
  EXPECT_TRUE(at::equal(raw.tokens, batch.inputs));
  EXPECT_TRUE(at::equal(raw.targets, batch.targets));
}

}  // namespace
}  // namespace lehr::data
