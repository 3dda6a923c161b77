#include "engine/data/csv.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/data/files.h"

namespace lehr::data {
namespace {

class Csv : public testing::Test {
 protected:
  std::vector<StringList> rows(const std::string& content, char delimiter = ',') {
    const Bytes file = read_bytes(folder.write("t.csv", content));
    CsvReader reader(file, delimiter);
    std::vector<StringList> all = {reader.names()};
    std::vector<std::string_view> cells;
    while (reader.next(cells)) all.emplace_back(cells.begin(), cells.end());
    return all;
  }
  Error refused(const std::string& content) {
    return error_of([&] { rows(content); });
  }
  TableRows table(const std::string& content, const TableColumns& columns) {
    const Bytes file = read_bytes(folder.write("t.csv", content));
    std::vector<Dictionary> dictionaries;
    Dictionary classes;
    return read_table(file, ',', columns, dictionaries, classes, true);
  }
  TempFolder folder;
};

using Rows = std::vector<StringList>;

TEST_F(Csv, ReadsQuotesLineBreaksAndDelimitersInside) {
  EXPECT_EQ(rows("a,b\n1,2\n"), (Rows{{"a", "b"}, {"1", "2"}}));
  EXPECT_EQ(rows("a,b\n\"x,y\",\"two\nlines\"\n"), (Rows{{"a", "b"}, {"x,y", "two\nlines"}}));
  EXPECT_EQ(rows("a,b\n\"say \"\"hi\"\"\",\"\"\n"), (Rows{{"a", "b"}, {"say \"hi\"", ""}}));
  EXPECT_EQ(rows("a,b,c\n\"\"\"1\"\"\",\"\"\"2\"\"\",\"\"\"3\"\"\"\n"),
            (Rows{{"a", "b", "c"}, {"\"1\"", "\"2\"", "\"3\""}}));
  EXPECT_EQ(rows("a;b\n1,5;2\n", ';'), (Rows{{"a", "b"}, {"1,5", "2"}}));
  EXPECT_EQ(rows("a,b\nit\"s,2\n"), (Rows{{"a", "b"}, {"it\"s", "2"}}));
}

TEST_F(Csv, ReadsEveryKindOfLineEnd) {
  const Rows want{{"a", "b"}, {"1", "2"}, {"3", ""}};
  EXPECT_EQ(rows("a,b\n1,2\n3,"), want);
  EXPECT_EQ(rows("a,b\r\n1,2\r\n3,\r\n"), want);
  EXPECT_EQ(rows("\xef\xbb\xbf"
                 "a,b\r\n1,2\r\n3,"),
            want);
  EXPECT_EQ(rows("\n\na,b\n1,2\n\n\r\n3,\n\n"), want);
  EXPECT_EQ(rows("a,b\n\"1\",\"2\"\r\n\"3\",\"\""), want);
  // one column: an empty line is a missing value
  EXPECT_EQ(rows("a\n1\n\n2\n"), (Rows{{"a"}, {"1"}, {""}, {"2"}}));
}

TEST_F(Csv, NamesTheLineOfARaggedRow) {
  const Error error = refused("a,b\n1,2\n\"two\nlines\",3\n4,5,6\n");
  EXPECT_EQ(error.where(), folder.path("t.csv") + ":5");
  EXPECT_TRUE(holds(error.what(), "3 fields, the header 2"));
  EXPECT_EQ(refused("a,b\n1\n").where(), folder.path("t.csv") + ":2");
}

TEST_F(Csv, RefusesWhatIsNoTable) {
  EXPECT_TRUE(holds(refused("").what(), "empty"));
  EXPECT_TRUE(holds(refused("\n\n").what(), "empty"));
  EXPECT_EQ(refused("a,b\n1,\"2\n3,4\n").where(), folder.path("t.csv") + ":2");
  EXPECT_TRUE(
      holds(refused("a,b\n\"1\"x,2\n").what(), "text follows the closing quote of field 1"));
  EXPECT_TRUE(holds(refused("a,b,a\n").what(), "two columns are called 'a'"));
  EXPECT_EQ(refused(std::string("a,b\n1,\0\n", 8)).where(), folder.path("t.csv") + " at byte 6");
  EXPECT_EQ(refused("a,b\nM\xfcnchen,2\n").where(), folder.path("t.csv") + " at byte 5");
  EXPECT_EQ(refused("a,b\n\xed\xa0\x80,2\n").where(), folder.path("t.csv") + " at byte 4");
  EXPECT_EQ(rows("a,b\nM\xc3\xbcnchen,\xf0\x9f\x98\x80\n")[1][0], "M\xc3\xbcnchen");
}

TEST_F(Csv, ReadsNumbersAndWhatStandsForMissing) {
  const TableRows t =
      table("x,y\n 1.5 ,-2e3\n+3,NA\nnan,\n.5,1e-400\n", {{"x", "y"}, {}, "", false, {}});
  EXPECT_EQ(t.rows, 4);
  EXPECT_EQ(t.numbers[0], 1.5);
  EXPECT_EQ(t.numbers[1], -2000);
  EXPECT_EQ(t.numbers[2], 3);
  EXPECT_TRUE(std::isnan(t.numbers[3]));
  EXPECT_TRUE(std::isnan(t.numbers[4]));
  EXPECT_TRUE(std::isnan(t.numbers[5]));
  EXPECT_EQ(t.numbers[6], 0.5);
  for (const char* bad : {"abc", "1.2.3", "inf", "1e999", "0x10", "1,", "--1", "+-1", "+"}) {
    const Error error = error_of([&] {
      table(std::string("x\n1\n\"") + bad + "\"\n", {{"x"}, {}, "", false, {}});
    });
    EXPECT_EQ(error.where(), folder.path("t.csv") + ":3") << bad;
    EXPECT_TRUE(holds(error.what(), "column 'x'"));
  }
}

// as pandas 3.1.1 takes each in a column of numbers, where 1 stands for a number that is there
TEST_F(Csv, SpellsNumbersAsPandas) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto& [cell, value] : std::vector<std::pair<const char*, double>>{{"inf", inf},
                                                                               {"-inf", -inf},
                                                                               {"+inf", inf},
                                                                               {"INF", inf},
                                                                               {"Infinity", inf},
                                                                               {"-infinity", -inf},
                                                                               {"1e400", inf},
                                                                               {"-1e400", -inf},
                                                                               {"  3 ", 3},
                                                                               {"5.", 5},
                                                                               {".5", 0.5},
                                                                               {"1e5", 1e5}})
    EXPECT_EQ(parse_number(cell), value) << cell;
  for (const char* missing :
       {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"})
    EXPECT_TRUE(parse_number(missing) && std::isnan(*parse_number(missing))) << missing;
  for (const char* word : {"nan(1)", "+nan", "1_000", "0x10", "1d5", "infinit", "1,5", "none", "-"})
    EXPECT_FALSE(parse_number(word)) << word;
  EXPECT_TRUE(std::isnan(*parse_number("-", {"?", "-"})));
  const Error error = error_of([&] { table("x\n1\n-inf\n", {{"x"}, {}, "", false, {}}); });
  EXPECT_EQ(error.where(), folder.path("t.csv") + ":3");
  EXPECT_EQ(error.message(), "column 'x': '-inf' is infinite");
  EXPECT_EQ(table("x\n9007199254740993\n9007199254740992\n-0018014398509481984\n1e22\n",
                  {{"x"}, {}, "", false, {}})
                .rounded,
            std::vector<int64_t>{1});
}

TEST_F(Csv, NamesOtherKindsOfFile) {
  EXPECT_TRUE(holds(refused("PAR1....").what(), "is a Parquet file"));
  EXPECT_TRUE(holds(refused("\xff\xfe"
                            "a,b\n")
                        .hint(),
                    "iconv -f UTF-16"));
  for (const char* old_mac : {"a,b\r1,2\r", "\"a\",\"b\"\r\"1\",\"2\"\r"})
    EXPECT_TRUE(holds(refused(old_mac).hint(), "tr '\\r' '\\n'")) << old_mac;
  EXPECT_EQ(rows("a,b\r\n"), (Rows{{"a", "b"}}));
  EXPECT_TRUE(holds(refused("a,b,a\n").hint(), "rename one of them"));
}

// Pieces of a stream end anywhere: in a quote, before a line feed, within a character.
TEST_F(Csv, ReadsAFileBeyondItsWindowAsAtOnce) {
  std::string content = "a,b,c\r\n";
  for (int i = 0; content.size() < 5'000'000; ++i)
    content += fmt::format("{},\"say \"\"{}\"\"\n{}\",{}{}", i, i, std::string(i % 97, 'x'),
                           i % 3 ? "K\xc3\xb6ln" : "", i % 2 ? "\r\n" : "\n");
  content += "\"" + std::string(3 << 20, 'y') + "\",2,3";  // one row is larger than the window
  const std::string path = folder.write("t.csv", content);
  const Bytes file = read_bytes(path);
  CsvReader whole(file, ','), stream(path, ',');
  std::vector<std::string_view> a, b;
  int64_t rows = 0;
  for (bool more = true; more; ++rows) {
    more = whole.next(a);
    ASSERT_EQ(stream.next(b), more);
    ASSERT_EQ(a, b) << "row " << rows;
    ASSERT_EQ(stream.where(), whole.where());
  }
  EXPECT_GT(rows, 10000);
  folder.write("t.csv", content + "\n1,\xff,2\n");
  CsvReader bad(path, ',');
  const Error error = error_of([&] {
    while (bad.next(b)) {
    }
  });
  EXPECT_EQ(error.where(), fmt::format("{} at byte {}", path, content.size() + 3));
}

TEST_F(Csv, NamesTheNearestColumn) {
  const Error error = error_of([&] {
    table("temp,cnt\n1,2\n", {{"temp"}, {}, "count", false, {}});
  });
  EXPECT_EQ(error.code(), Code::kRecipe);
  EXPECT_EQ(error.where(), "data.target");
  EXPECT_TRUE(holds(error.hint(), "Did you mean 'cnt'?"));
  const auto hint = [](const StringList& names) {
    return error_of([&] { column_index(names, "t.csv", "price", "data.target"); }).hint();
  };
  EXPECT_EQ(hint({"a", "b"}), "Its columns are a, b.");
  EXPECT_EQ(hint({"a;b;price"}),
            "It has one column, 'a;b;price': is data.delimiter what separates its fields?");
}

TEST_F(Csv, KeepsEmptyNamesApart) {
  EXPECT_EQ(rows(",b,\n1,2,3\n")[0], (StringList{"column_1", "b", "column_3"}));
}

TEST_F(Csv, TakesTheDelimiterByItsName) {
  EXPECT_EQ(parse_delimiter("tab"), '\t');
  EXPECT_EQ(parse_delimiter("\\t"), '\t');
  EXPECT_EQ(parse_delimiter(";"), ';');
  EXPECT_EQ(error_of([] { parse_delimiter(", "); }).where(), "data.delimiter");
}

}  // namespace
}  // namespace lehr::data
