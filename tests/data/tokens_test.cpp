// Token shards: the format, damage, and how several sources are mixed.
#include "engine/data/tokens.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "engine/data/dataset.h"
#include "engine/data/loader.h"
#include "engine/data/token_file.h"
#include "engine/data/windows.h"
#include "tests/data/files.h"

namespace lehr::data {
namespace {

Tokens counting(size_t n, uint32_t first, uint32_t below) {
  Tokens ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = first + static_cast<uint32_t>(i) % below;
  return ids;
}

std::string write_shard(const TempFolder& folder, const std::string& name, const Tokens& ids,
                        int64_t vocabulary = 60000, std::vector<int64_t> documents = {0}) {
  TokenShard shard;
  shard.path = folder.path(name);
  shard.tokenizer = std::string(32, 'a');
  shard.text_bytes = ids.size() * 3;
  shard.documents = documents;
  write_token_shard(shard, ids, vocabulary);
  return shard.path;
}

TEST(TokenShard, HoldsWhatWasWritten) {
  TempFolder folder;
  for (int64_t vocabulary : {300, 65536, 65537, 200000})
    for (size_t n : {0, 1, 2, 3, 4, 5, 1000}) {
      TokenShard shard;
      shard.path = folder.path("x.tokens");
      shard.tokenizer = "0123456789abcdef0123456789abcdef";
      shard.text_bytes = 77;
      shard.begin = {1, 2}, shard.end = {3, 4};
      const std::vector<int64_t> documents = {1, 3};
      if (n > 3) shard.documents = documents;
      const Tokens ids = counting(n, static_cast<uint32_t>(vocabulary) - 300, 300);
      write_token_shard(shard, ids, vocabulary);
      const TokenShard read = open_token_shard(shard.path, true);
      EXPECT_EQ(read.token_bytes, vocabulary > 65536 ? 4 : 2);
      EXPECT_EQ(read.count, static_cast<int64_t>(n));
      EXPECT_EQ(read.vocabulary, vocabulary);
      EXPECT_TRUE(std::equal(read.documents.begin(), read.documents.end(), shard.documents.begin(),
                             shard.documents.end()));
      EXPECT_EQ(read.tokenizer, shard.tokenizer);
      EXPECT_EQ(read.text_bytes, 77u);
      EXPECT_EQ(read.begin, shard.begin);
      EXPECT_EQ(read.end, shard.end);
      TokenStream stream;
      stream.add(read);
      std::vector<int64_t> back(n);
      stream.read(0, read.count, back.data());
      EXPECT_TRUE(std::equal(back.begin(), back.end(), ids.begin(), ids.end()));
    }
}

TEST(TokenShard, NoFlippedByteIsBelieved) {
  TempFolder folder;
  const std::string path = write_shard(folder, "x.tokens", counting(41, 5, 30), 60000, {0, 7});
  const std::string good = read_text(path);
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    folder.write("x.tokens", bad);
    const Error error = error_of([&] { open_token_shard(path, true); });
    EXPECT_EQ(error.code(), Code::kData);
    EXPECT_TRUE(holds(error.where(), "x.tokens at byte")) << error.what();
    // without reading all of it, the header at least
    if (at < 256) {
      error_of([&] { open_token_shard(path); });
    }
  }
  for (size_t size = 0; size < good.size(); ++size) {
    folder.write("x.tokens", good.substr(0, size));
    EXPECT_EQ(error_of([&] { open_token_shard(path); }).code(), Code::kData);
  }
  folder.write("x.tokens", good + "x");
  EXPECT_TRUE(holds(error_of([&] { open_token_shard(path); }).what(), "the header says"));
  EXPECT_TRUE(
      holds(error_of([&] { open_token_shard(folder.path("no.tokens")); }).what(), "missing"));
}

TEST(TokenStream, ReadsAcrossPieces) {
  TokenStream stream;
  std::vector<int64_t> all, starts;
  Random random(1, Stream::kTest, 0);
  for (int piece = 0; piece < 12; ++piece) {
    const Tokens ids = counting(random.below(9), static_cast<uint32_t>(piece) * 100, 50);
    if (!ids.empty()) starts.push_back(static_cast<int64_t>(all.size()));
    all.insert(all.end(), ids.begin(), ids.end());
    stream.add(ids, piece % 2 ? 2000 : 200000,
               ids.empty() ? std::vector<int64_t>{} : std::vector<int64_t>{0});
  }
  ASSERT_EQ(stream.size(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(stream.documents_in(0, stream.size()), starts);
  EXPECT_EQ(stream.documents(), static_cast<int64_t>(starts.size()));
  const int64_t n = stream.size();
  for (int64_t begin = 0; begin <= n; ++begin)
    for (int64_t end = begin; end <= n; ++end) {
      std::vector<int64_t> read(end - begin);
      stream.read(begin, end - begin, read.data());
      ASSERT_TRUE(std::equal(read.begin(), read.end(), all.begin() + begin));
      const TokenStream part = stream.part(begin, end);
      ASSERT_EQ(part.size(), end - begin);
      part.read(0, part.size(), read.data());
      ASSERT_TRUE(std::equal(read.begin(), read.end(), all.begin() + begin));
      std::vector<int64_t> within;  // of the part, in its own numbers
      for (const int64_t start : starts)
        if (start >= begin && start < end) within.push_back(start - begin);
      ASSERT_EQ(part.documents_in(0, part.size()), within);
      for (auto& start : within) start += begin;
      ASSERT_EQ(stream.documents_in(begin, end), within);
      for (int64_t t = begin; t < end; ++t) {
        const auto before = std::upper_bound(starts.begin(), starts.end(), t) - starts.begin();
        ASSERT_EQ(stream.document_of(t), before - 1);
        const auto cut = std::lower_bound(starts.begin(), starts.end(), begin) - starts.begin();
        ASSERT_EQ(part.document_of(t - begin), before - 1 - cut);
      }
    }
}

TEST(Mixture, GivesEverySampleOfEverySourceItsPlace) {
  for (const std::vector<int64_t>& counts : {std::vector<int64_t>{5},
                                             {7, 3},
                                             {1, 1, 1},
                                             {10, 1, 100},
                                             {0, 4, 0, 9},
                                             {6, 4, 2},
                                             {1000, 999}}) {
    const Mixture mixture(counts);
    std::vector<int64_t> seen(counts.size());
    for (int64_t i = 0; i < mixture.size(); ++i) {
      const auto [source, number] = mixture.at(i);
      ASSERT_EQ(number, seen[source]++);  // each once, in order
      // never further than one sample a source from its exact share so far
      for (size_t s = 0; s < counts.size(); ++s) {
        const double share = static_cast<double>(counts[s]) * static_cast<double>(i + 1) /
                             static_cast<double>(mixture.size());
        ASSERT_LT(std::abs(share - static_cast<double>(seen[s])),
                  static_cast<double>(counts.size()));
      }
    }
    EXPECT_EQ(seen, counts);
  }
}

TEST(Mixture, HoldsBillionsOfSamples) {
  const Mixture mixture({3'000'000'000'000, 1'000'000'000'000, 7});
  int64_t first = 0;
  for (int64_t i = 1'234'567'890'123; i < 1'234'567'890'123 + 4000; ++i)
    first += mixture.at(i).source == 0;
  EXPECT_NEAR(static_cast<double>(first), 3000, 2);
}

// only a stretch around a sample's share is looked through
TEST(Mixture, FindsEverySampleOfManyUnevenSources) {
  Random random(6, Stream::kTest, 0);
  for (int round = 0; round < 40; ++round) {
    std::vector<int64_t> counts(1 + random.below(12));
    for (auto& count : counts) count = random.below(4) ? random.below(50) : random.below(2);
    const Mixture mixture(counts);
    std::vector<int64_t> seen(counts.size());
    for (int64_t i = 0; i < mixture.size(); ++i) {
      const auto [source, number] = mixture.at(i);
      ASSERT_EQ(number, seen[source]++);
    }
    EXPECT_EQ(seen, counts);
  }
}

TEST(Mixture, SharesAddUp) {
  EXPECT_EQ(shares(10, {1, 1, 1}), (std::vector<int64_t>{4, 3, 3}));
  EXPECT_EQ(shares(100, {0.7, 0.3}), (std::vector<int64_t>{70, 30}));
  EXPECT_EQ(shares(7, {2, 8, 2}), (std::vector<int64_t>{1, 5, 1}));
}

Batch filled(const Dataset& set, Split split, bool augment = true, int64_t epoch = 0,
             uint64_t seed = 1) {
  std::vector<int64_t> samples(set.size(split));
  std::iota(samples.begin(), samples.end(), 0);
  Batch batch = set.allocate(static_cast<int64_t>(samples.size()));
  set.fill(split, samples.data(), 0, static_cast<int64_t>(samples.size()), augment, seed, epoch,
           batch);
  return batch;
}

FixedFields token_fields(const StringList& paths, int64_t context, double fraction = 0) {
  return FixedFields({{"data.source", std::string("tokens")},
                      {"data.train_tokens", paths},
                      {"data.validation_fraction", fraction},
                      {"data.context", context}});
}

TEST(TokensSource, TakesEveryWindowOnceAnEpochInAnotherOrderEachTime) {
  TempFolder folder;
  Tokens ids(4000);
  std::iota(ids.begin(), ids.end(), 0u);
  // two sources of two shards and one; a window may lie across the shards of a source
  const Tokens a(ids.begin(), ids.begin() + 1003), b(ids.begin() + 1003, ids.end());
  auto set = open_dataset(
      token_fields({write_shard(folder, "a.tokens", a), write_shard(folder, "b.tokens", b)}, 8));
  ASSERT_EQ(set->size(Split::kTrain), 1003 / 8 - 1 + 2997 / 8 - 1);
  std::vector<at::Tensor> epochs;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const Batch batch = filled(*set, Split::kTrain, true, epoch);
    const at::Tensor flat = batch.inputs.flatten();
    std::set<int64_t> seen(flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel());
    EXPECT_EQ(static_cast<int64_t>(seen.size()), flat.numel());  // no token twice in an epoch
    EXPECT_TRUE(at::equal(batch.inputs + 1, batch.targets));
    epochs.push_back(batch.inputs);
  }
  EXPECT_FALSE(at::equal(epochs[0], epochs[1]));
  EXPECT_FALSE(at::equal(epochs[0].flatten(), std::get<0>(epochs[0].flatten().sort())));
  EXPECT_TRUE(at::equal(epochs[2], filled(*set, Split::kTrain, true, 2).inputs));
  EXPECT_FALSE(at::equal(epochs[2], filled(*set, Split::kTrain, true, 2, 9).inputs));
}

TEST(TokensSource, MixesByWeightAndGoesThroughASmallSourceAgain) {
  TempFolder folder;
  auto fields = token_fields({write_shard(folder, "a.tokens", counting(880, 0, 880)),
                              write_shard(folder, "b.tokens", counting(8080, 1000, 8080))},
                             8)
                    .set("data.weights", FloatList{0.5, 0.5});
  auto set = open_dataset(fields);
  const int64_t total = 109 + 1009;
  ASSERT_EQ(set->size(Split::kTrain), total);
  std::map<int64_t, int> large;
  std::vector<std::vector<int64_t>> passes(1);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const Batch batch = filled(*set, Split::kTrain, true, epoch);
    int64_t small = 0;
    for (int64_t i = 0; i < total; ++i) {
      const int64_t first = batch.inputs[i][0].item<int64_t>();
      if (first < 1000) {
        ++small;
        if (passes.back().size() == 109) passes.emplace_back();
        passes.back().push_back(first);
      } else if (epoch < 1) {
        ++large[first];
      }
      EXPECT_NEAR(static_cast<double>(small), static_cast<double>(i + 1) / 2, 1);
    }
    EXPECT_EQ(small, total / 2);
  }
  EXPECT_EQ(large.size(), 559u);  // the large one: no window twice
  ASSERT_GT(passes.size(), 14u);
  for (size_t p = 0; p + 1 < passes.size(); ++p) {
    // each pass takes every window once, whatever epochs it lies in
    EXPECT_EQ(std::set<int64_t>(passes[p].begin(), passes[p].end()).size(), 109u) << p;
    if (p > 0) {
      EXPECT_NE(passes[p], passes[p - 1]);
    }
  }
}

TEST(TokensSource, HoldsOutTheLastDocuments) {
  TempFolder folder;
  Tokens ids(1000);
  std::iota(ids.begin(), ids.end(), 0u);
  std::vector<int64_t> documents;
  for (int64_t at = 0; at < 1000; at += 70) documents.push_back(at);
  auto set =
      open_dataset(token_fields({write_shard(folder, "a.tokens", ids, 60000, documents)}, 8, 0.1));
  const Batch validation = filled(*set, Split::kValidation, false);
  EXPECT_EQ(validation.inputs[0][0].item<int64_t>(), 910);  // the first document after token 900
  EXPECT_EQ(std::get<0>(validation.targets.flatten().sort())[-1].item<int64_t>(), 999);
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    EXPECT_LT(filled(*set, Split::kTrain, true, epoch).targets.max().item<int64_t>(), 910);
  }
  EXPECT_EQ(nlohmann::json::parse(set->statistics())["tokens"]["validation"], 90);
}

TEST(TokensSource, TakesValidationAndTestFromTheirOwnShards) {
  TempFolder folder;
  auto set =
      open_dataset(token_fields({write_shard(folder, "a.tokens", counting(500, 0, 500))}, 8, 0.1)
                       .set("data.validation_tokens",
                            StringList{write_shard(folder, "b.tokens", counting(20, 1000, 500)),
                                       write_shard(folder, "c.tokens", counting(30, 2000, 500))})
                       .set("data.test_tokens",
                            StringList{write_shard(folder, "d.tokens", counting(9, 3000, 500))}));
  EXPECT_EQ(set->size(Split::kValidation), 3 + 4);
  EXPECT_EQ(set->size(Split::kTest), 1);
  std::set<int64_t> targets;
  const at::Tensor flat = filled(*set, Split::kValidation, false).targets.flatten();
  for (int64_t i = 0; i < flat.numel(); ++i) targets.insert(flat[i].item<int64_t>());
  EXPECT_EQ(targets.size(), 1u + 19 + 29);  // every token but the first of each, and -100
  EXPECT_TRUE(targets.contains(1019) && targets.contains(2029) && !targets.contains(1000));
}

TEST(TokensSource, GivesOneStreamForAnyThreadsRanksAndRestarts) {
  TempFolder folder;
  std::shared_ptr<Dataset> set =
      open_dataset(token_fields({write_shard(folder, "a.tokens", counting(880, 0, 880)),
                                 write_shard(folder, "b.tokens", counting(3000, 1000, 3000))},
                                8)
                       .set("data.weights", FloatList{1, 2}));
  auto read = [&](int threads, int rank, int world, int64_t from, int steps) {
    LoaderOptions o;
    o.global_batch = 8, o.micro_batch = 4, o.seed = 9;
    o.threads = threads, o.rank = rank, o.world = world;
    Loader loader(set, o);
    loader.seek(from);
    std::vector<at::Tensor> rows;
    for (int i = 0; i < steps; ++i)
      for (const Batch& batch : loader.next().micro) rows.push_back(batch.inputs.clone());
    return at::cat(rows);
  };
  const at::Tensor one = read(0, 0, 1, 0, 30);
  EXPECT_TRUE(at::equal(read(3, 0, 1, 0, 30), one));
  EXPECT_TRUE(at::equal(read(2, 0, 1, 80, 20), one.slice(0, 80)));
  const at::Tensor first = read(1, 0, 2, 0, 30).view({30, 4, 8}),
                   second = read(1, 1, 2, 0, 30).view({30, 4, 8});
  EXPECT_TRUE(at::equal(at::cat({first, second}, 1).view({240, 8}), one));
}

TEST(TokensSource, KeepsItsOwnOrderWhereOthersAreShuffled) {
  TempFolder folder;
  std::shared_ptr<Dataset> set =
      open_dataset(token_fields({write_shard(folder, "a.tokens", counting(880, 0, 880)),
                                 write_shard(folder, "b.tokens", counting(3000, 1000, 3000))},
                                8)
                       .set("data.weights", FloatList{1, 3}));
  LoaderOptions o;
  o.global_batch = o.micro_batch = 8, o.shuffle = true;
  Loader loader(set, o);
  for (int step = 0; step < 40; ++step) {
    // every batch has the mixture of the whole
    const at::Tensor first = loader.next().micro[0].inputs.slice(1, 0, 1);
    EXPECT_EQ(first.lt(1000).sum().item<int64_t>(), 2) << step;
  }
}

TEST(TokensSource, AnIdBeyondTheVocabularyNamesItsShard) {
  TempFolder folder;
  Tokens ids = counting(200, 0, 100);
  ids[150] = 400;
  const std::string bad = write_shard(folder, "bad.tokens", ids, 300);
  auto set = open_dataset(
      token_fields({write_shard(folder, "a.tokens", counting(100, 0, 90), 300), bad}, 8));
  const Error error = error_of([&] { filled(*set, Split::kTrain, false); });
  EXPECT_EQ(error.code(), Code::kData);
  EXPECT_EQ(error.where(), bad);
  EXPECT_TRUE(holds(error.what(), "token 150 is 400, and its ids are below 300")) << error.what();
  // and so does a table of documents that makes no sense
  const std::string odd = write_shard(folder, "odd.tokens", counting(200, 0, 90), 300, {0, 90, 40});
  auto masked = open_dataset(token_fields({odd}, 8).set("data.document_mask", true));
  const Error table = error_of([&] { filled(*masked, Split::kTrain, false); });
  EXPECT_EQ(table.where(), odd);
  EXPECT_TRUE(holds(table.what(), "begins at token")) << table.what();
}

TEST(TokensSource, CountsAreThoseOfTheIndexWithoutWhatValidates) {
  TempFolder folder;
  write_shard(folder, "train-00000.tokens", counting(1000, 0, 50), 60, {0, 300, 910});
  folder.write("tokenizer.json", "{}");
  auto entropy = [&](const std::string& more) {
    folder.write(
        "tokens.json",
        R"({"version": 1, "train": ["train-00000.tokens"], "validation": [])" + more + "}");
    // no tokenizer: these are a test's
    std::filesystem::remove(folder.path("tokenizer.json"));
    folder.write("tokenizer.json", "");
    const auto figures =
        nlohmann::json::parse(open_dataset(token_fields({folder.path()}, 8, 0.1))->statistics());
    return std::pair{figures["unigram_entropy"].get<double>(), figures["tokens_seen"].get<int>()};
  };
  const auto counted = entropy("");
  EXPECT_EQ(counted.second, 50);
  std::vector<int64_t> counts(60);
  for (int i = 0; i < 1000; ++i) ++counts[i % 50];
  EXPECT_EQ(entropy(", \"counts\": " + nlohmann::json(counts).dump()), counted);
  counts[59] = 500;  // so it is the index that is believed
  EXPECT_EQ(entropy(", \"counts\": " + nlohmann::json(counts).dump()).second, 51);
}

TEST(TokensSource, SaysWhatDoesNotFit) {
  TempFolder folder;
  const std::string a = write_shard(folder, "a.tokens", counting(500, 0, 500));
  TokenShard other;
  other.path = folder.path("b.tokens");
  other.tokenizer = std::string(32, 'b');
  const std::vector<int64_t> first = {0};
  other.documents = first;
  write_token_shard(other, counting(500, 0, 500), 60000);
  EXPECT_TRUE(holds(error_of([&] {
                      open_dataset(token_fields({a, other.path}, 8));
                    }).what(),
                    "another tokenizer than " + a));
  EXPECT_TRUE(holds(error_of([&] {
                      open_dataset(token_fields({a}, 8).set("data.weights", FloatList{1, 2}));
                    }).what(),
                    "2 weights for 1 sources"));
  EXPECT_TRUE(
      holds(error_of([&] { open_dataset(token_fields({a}, 500)); }).where(), "data.context"));
  EXPECT_TRUE(holds(error_of([&] { open_dataset(token_fields({folder.path()}, 8)); }).what(),
                    "Run its lehr tokenize again"));
  EXPECT_TRUE(holds(
      error_of([&] { open_dataset(token_fields({a}, 8).set("data.document_mask", true)); }).where(),
      "data.document_mask"));
}

}  // namespace
}  // namespace lehr::data
