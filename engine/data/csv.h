// CSV text (RFC 4180: quotes, doubled quotes, line breaks inside quotes, LF or CRLF, with or
// without a last line break, with or without a byte-order mark) as rows, and as typed columns.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fields.h"
#include "engine/data/bytes.h"

namespace lehr::data {

class CsvReader {
 public:
  // Reads the header line. Throws Error{kData} when there is none, a name comes twice, or the file
  // is of another kind (what_is.h). `file` must outlive the reader.
  CsvReader(const Bytes& file, char delimiter);
  // The same of a file that need not fit into memory: holds about a megabyte, and whole rows.
  CsvReader(const std::string& path, char delimiter);
  const StringList& names() const { return names_; }
  // The next row's cells, valid until the next call; false at the end. Empty lines are passed over.
  // Throws Error{kData} "file:line: ..." for a row of another length or a quote that is not closed,
  // "file at byte N: ..." for what is no UTF-8 text.
  bool next(std::vector<std::string_view>& cells);
  int64_t line() const { return line_; }  // on which the last row began, from 1
  std::string where() const;              // "file:line"

 private:
  void begin();
  bool read_row(std::vector<std::string_view>& cells);
  void parse_row(std::vector<std::string_view>& cells);
  void read_more(const char* from);

  std::string path_;
  char delimiter_;
  std::unique_ptr<ByteStream> stream_;  // none: all is in the window
  bool more_ = false;                   // of the stream, behind the window
  std::string buffer_;                  // the window, of a stream
  uint64_t first_byte_ = 0;             // of the window, in the file
  const char *window_, *at_, *end_;
  int64_t next_line_ = 1, line_ = 1;
  StringList names_;
  std::deque<std::string>
      unquoted_;  // cells that hold doubled quotes; their texts stay where they are
};

// Texts of one column and their codes, in the order of appearance.
class Dictionary {
 public:
  int32_t code(std::string_view text);
  int32_t find(std::string_view text) const;  // -1: unknown
  const StringList& texts() const { return texts_; }

 private:
  std::map<std::string, int32_t, std::less<>> codes_;
  StringList texts_;
};

// What is read of a table. Columns are found by name.
struct TableColumns {
  StringList numbers, strings;
  std::string target;  // "" : none is read
  bool target_is_class = false;
  StringList missing;  // words that stand for a missing number, beside those of pandas
};

struct TableRows {
  int64_t rows = 0;
  std::vector<double> numbers;   // [rows, F], missing as NaN
  std::vector<int32_t> codes;    // [rows, S] into the dictionaries, missing as the code of ""
  std::vector<double> values;    // targets that are numbers
  std::vector<int64_t> labels;   // targets that are classes
  std::vector<int64_t> rounded;  // [F]: whole numbers that a double does not hold exactly
};

// Rows of `reader`, which must outlive this. Labels are looked up in `classes`, which grows when
// `classes_grow`. Throws Error{kRecipe} for a column that is not there (with the nearest name).
class TableReader {
 public:
  TableReader(CsvReader& reader, const std::string& path, const TableColumns& columns,
              std::vector<Dictionary>& dictionaries, Dictionary& classes, bool classes_grow);
  // The next rows, `most` at most, are added to `table`. Throws Error{kData} "file:line: ..." for a
  // cell that is not what its column says.
  void read(TableRows& table, int64_t most);

 private:
  double number(const std::string& column, std::string_view cell) const;

  CsvReader& reader_;
  const TableColumns columns_;
  std::vector<Dictionary>& dictionaries_;
  Dictionary& classes_;
  const bool classes_grow_;
  std::vector<size_t> numbers_, strings_;  // places of columns
  size_t target_ = 0;
  std::vector<std::string_view> cells_;
};
// All rows of a file.
TableRows read_table(const Bytes& file, char delimiter, const TableColumns& columns,
                     std::vector<Dictionary>& dictionaries, Dictionary& classes, bool classes_grow);

// A cell as a number, in the spellings that pandas takes (infinities too); NaN: missing; nullopt:
// something else. `missing`: further words.
std::optional<double> parse_number(std::string_view cell, const StringList& missing = {});

// Place of a column. Throws Error{kRecipe} where it is not there, naming `field` and the nearest,
// or all of them, or the delimiter that was not found.
size_t column_index(const StringList& names, const std::string& path, const std::string& name,
                    const std::string& field);

// Are so many rows of `rows` with a category that training has not seen worth a word?
inline bool is_share_of_unseen(int64_t unseen, int64_t rows) { return unseen * 100 > rows; }

// The spelling of data.delimiter. Throws Error{kRecipe}.
char parse_delimiter(const std::string& text);
// A cell for a message: one short line.
std::string cell_text(std::string_view cell);

}  // namespace lehr::data
