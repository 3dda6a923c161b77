// Which columns of a table are inputs, and of which kind: as declared, or by what their cells hold.
#pragma once

#include "engine/data/csv.h"
#include "engine/data/fields.h"

namespace lehr::data {

struct ChosenColumns {
  TableColumns columns;
  StringList remarks;  // what was guessed against some of the cells, a line each
};
// A column of which every cell is a number or missing is one of numbers; where a few are something
// else, it is a column of categories and that is said. Throws Error{kData} for a column of almost
// only numbers that would become a category a value, with the cells that are none; Error{kRecipe}
// for columns that are not there or said twice.
ChosenColumns choose_columns(const Bytes& file, char delimiter, const TableFields& fields);

}  // namespace lehr::data
