#include "engine/data/csv.h"

#include <gtest/gtest.h>

#include <cmath>

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
      table("x,y\n 1.5 ,-2e3\n+3,NA\nnan,\n.5,1e-400\n", {{"x", "y"}, {}, "", false});
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
      table(std::string("x\n1\n\"") + bad + "\"\n", {{"x"}, {}, "", false});
    });
    EXPECT_EQ(error.where(), folder.path("t.csv") + ":3") << bad;
    EXPECT_TRUE(holds(error.what(), "column 'x'"));
  }
}

TEST_F(Csv, NamesTheNearestColumn) {
  const Error error = error_of([&] { table("temp,cnt\n1,2\n", {{"temp"}, {}, "count", false}); });
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
