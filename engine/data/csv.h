// CSV text (RFC 4180: quotes, doubled quotes, line breaks inside quotes, LF or CRLF, with or
// without a last line break, with or without a byte-order mark) as rows, and as typed columns.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/fields.h"
#include "engine/data/bytes.h"

namespace lehr::data {

class CsvReader {
 public:
  // `file` must outlive the reader. Reads the header line. Throws Error{kData} when there is none,
  // a name comes twice, or the content is no UTF-8 text (with its byte).
  CsvReader(const Bytes& file, char delimiter);
  const StringList& names() const { return names_; }
  // The next row's cells, valid until the next call; false at the end. Empty lines are passed over.
  // Throws Error{kData} "file:line: ..." for a row of another length or a quote that is not closed.
  bool next(std::vector<std::string_view>& cells);
  int64_t line() const { return line_; }  // on which the last row began, from 1
  std::string where() const;              // "file:line"

 private:
  bool read_row(std::vector<std::string_view>& cells);

  const Bytes& file_;
  char delimiter_;
  const char *at_, *end_;
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
};

struct TableRows {
  int64_t rows = 0;
  std::vector<double> numbers;  // [rows, F], missing as NaN
  std::vector<int32_t> codes;   // [rows, S] into the dictionaries, missing as the code of ""
  std::vector<double> values;   // targets that are numbers
  std::vector<int64_t> labels;  // targets that are classes
};

// Reads all rows. Labels are looked up in `classes`, which grows when `classes_grow`. Throws
// Error{kRecipe} for a column that is not there (with the nearest name), Error{kData} "file:line:
// ..." for a cell that is not what its column says.
TableRows read_table(const Bytes& file, char delimiter, const TableColumns& columns,
                     std::vector<Dictionary>& dictionaries, Dictionary& classes, bool classes_grow);

// For each column: does every cell that is not missing hold a finite number?
std::vector<bool> number_columns(const Bytes& file, char delimiter);

// Place of a column. Throws Error{kRecipe} where it is not there, naming `field` and the nearest,
// or all of them, or the delimiter that was not found.
size_t column_index(const StringList& names, const std::string& path, const std::string& name,
                    const std::string& field);

// The spelling of data.delimiter. Throws Error{kRecipe}.
char parse_delimiter(const std::string& text);

}  // namespace lehr::data
