#include "engine/export/checks.h"

#include <fmt/format.h>

namespace lehr::artefact {
namespace {

// TorchScript knows dtypes by number: 0 to 4 are integers, 6 and 7 float and double
constexpr char kShown[] = R"py(
def lehr_shown(self, x: Tensor) -> str:
    names = ["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex32", "complex64", "complex128", "bool"]
    name = "another type"
    if x.dtype < len(names):
        name = names[x.dtype]
    return "{{}} {{}}".format(name, x.size())
)py";

// {0} "16, 16, 3"; {1} it has another; {2} "3, 16, 16", as other programs lay them out; {3} only
// the size differs
constexpr char kImages[] = R"py(
def lehr_check(self, images: Tensor) -> None:
    shape = images.size()
    if {1}:
        text = "images: uint8 [N, {0}] is wanted, not {{}}".format(self.lehr_shown(images))
        if shape == [{0}]:
            text = text + "; one picture becomes a batch by x.unsqueeze(0)"
        elif shape[1:] == [{2}]:
            text = text + "; channels come last: x.permute(0, 2, 3, 1)"
        elif {3}:
            text = text + "; pictures of another size are resized and cropped as the recipe says"
        raise ValueError(text)
    if images.dtype > 4:
        raise ValueError("images: uint8 [N, {0}] is wanted, the stored 0 to 255, not {{}}; of numbers from 0 to 1 it is made by (x * 255).round().to(torch.uint8)".format(self.lehr_shown(images)))
    if images.dtype > 0 and images.numel() > 0:
        low = int(images.min())
        high = int(images.max())
        if low < 0 or high > 255:
            raise ValueError("images: numbers from {{}} to {{}}, and pictures are stored as 0 to 255".format(low, high))
)py";

// {0} number columns, {1} how rows of strings are looked at
constexpr char kTables[] = R"py(
def lehr_listed(self, names: List[str]) -> str:
    text = ", ".join(names[:10])
    if len(names) > 10:
        text = text + ", ..."
    return text

def lehr_check(self, numbers: Tensor, strings: List[List[str]]) -> None:
    if (numbers.dtype != 7 and numbers.dtype != 6) or numbers.dim() != 2 or numbers.size(-1) != {0}:
        raise ValueError("numbers: float64 or float32 [N, {0}] is wanted ({{}}; missing: NaN), not {{}}".format(self.lehr_listed(self.number_columns), self.lehr_shown(numbers)))
{1}
def lehr_check_features(self, numbers: Tensor, x: Tensor) -> None:
    total = float(x.sum())
    if total - total != 0.0:
        bad = torch.nonzero(torch.isfinite(x) == 0)
        if bad.size(0) > 0:
            row = int(bad[0][0])
            column = int(bad[0][1])
            text = "row {{}}: its features are not finite".format(row)
            if column < {0}:
                text = "numbers: row {{}}, column {{}} ({{}}) is {{}}; wanted is a finite number not far from the training data's, or NaN where it is missing".format(row, column, self.number_columns[column], float(numbers[row][column]))
            raise ValueError(text)
)py";

// a loop over rows would cost more than the model where they hold nothing
constexpr char kNoStrings[] = R"py(
    if len(strings) > 0:
        if len(strings) != numbers.size(0) or len(strings[0]) != 0:
            raise ValueError("strings: this model takes none: give [] or a [] for each row")
)py";

// {0} string columns
constexpr char kStrings[] = R"py(
    if len(strings) != numbers.size(0):
        raise ValueError("strings: {{}} rows beside {{}} rows of numbers".format(len(strings), numbers.size(0)))
    for i in range(len(strings)):
        if len(strings[i]) != {0}:
            raise ValueError("strings: row {{}} has {{}} instead of {0} ({{}}; missing: an empty one)".format(i, len(strings[i]), self.lehr_listed(self.string_columns)))
)py";

// {0} longest, {1} vocabulary, {2} its last id
constexpr char kText[] = R"py(
def lehr_check(self, tokens: Tensor) -> None:
    if (tokens.dtype != 4 and tokens.dtype != 3) or tokens.dim() != 2 or tokens.size(-1) == 0:
        raise ValueError("tokens: int64 or int32 [N, T] is wanted, T at least 1, not {{}}".format(self.lehr_shown(tokens)))
    if tokens.numel() > 0:
        low = int(tokens.min())
        high = int(tokens.max())
        if low < 0 or high >= {1}:
            raise ValueError("tokens: ids from {{}} to {{}}, and the vocabulary has 0 to {2}".format(low, high))

def lehr_check_length(self, tokens: Tensor) -> None:
    if tokens.size(1) > {0}:
        raise ValueError("tokens: {{}} a row, and this model takes at most {0}".format(tokens.size(1)))
)py";

}  // namespace

std::string check_source(const data::DataInfo& info, int64_t longest, int64_t vocabulary) {
  std::string source = fmt::format(kShown);
  if (info.is_image) {
    const int64_t c = info.channels, h = info.height, w = info.width;
    const std::string grey = fmt::format("{}, {}", h, w), last = fmt::format("{}, {}", grey, c);
    const std::string differs =
        c == 1 ? fmt::format("shape[1:] != [{}] and shape[1:] != [{}]", grey, last)
               : fmt::format("shape[1:] != [{}]", last);
    return source + fmt::format(kImages, c == 1 ? grey : last, differs,
                                fmt::format("{}, {}", c, grey),
                                c == 1 ? "len(shape) == 3"
                                       : fmt::format("len(shape) == 4 and shape[3] == {}", c));
  }
  if (info.is_text) return source + fmt::format(kText, longest, vocabulary, vocabulary - 1);
  const size_t strings = info.string_columns.size();
  return source + fmt::format(kTables, info.number_columns.size(),
                              strings == 0 ? kNoStrings : fmt::format(kStrings, strings));
}

}  // namespace lehr::artefact
