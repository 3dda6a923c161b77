#include "engine/export/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "engine/base/error.h"
#include "engine/export/scan.h"

namespace lehr::artefact {
namespace {

// a table of a million categories stays below; what is read here takes half a gigabyte at most
constexpr size_t kMostBytes = 64 << 20, kMostOpcodes = 1 << 23;
constexpr int kDeepest = 200;
constexpr int64_t kMostOfNothing = int64_t{1} << 31;  // sizes of a tensor without elements

enum class Kind : uint8_t {
  // values
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kTuple,
  kList,
  kDict,
  kTensor,
  kObject,
  // what values are made with
  kMark,
  kStorage,
  kStorageType,
  kClass,
  kNewObject,
  kRebuildTensor,
  kRestoreTag,
  kHooks
};

struct Value {
  Kind kind;
  bool is_plain = false;  // may stand in a list, a dict or an object: a value, and complete
  int depth = 0;
  int64_t number = 0;     // int; elements of a storage; bytes an element of a storage's type
  std::string_view text;  // string
  std::shared_ptr<const std::vector<Value>> items;  // tuple
};

struct StorageType {
  const char* name;
  int64_t bytes;
};
constexpr StorageType kStorageTypes[] = {
    {"FloatStorage", 4}, {"DoubleStorage", 8}, {"HalfStorage", 2},  {"BFloat16Storage", 2},
    {"LongStorage", 8},  {"IntStorage", 4},    {"ShortStorage", 2}, {"CharStorage", 1},
    {"ByteStorage", 1},  {"BoolStorage", 1}};

Value plain(Kind kind, int64_t number = 0) { return {kind, true, 0, number, {}, {}}; }
Value other(Kind kind, int64_t number = 0) { return {kind, false, 0, number, {}, {}}; }

bool is_open(const Value& value) {
  return !value.is_plain && (value.kind == Kind::kList || value.kind == Kind::kDict);
}

class PickleScan {
 public:
  PickleScan(std::string_view bytes, const StorageBytes& storages, const std::string& where)
      : bytes_(bytes), storages_(storages), where_(where) {}

  void run() {
    if (bytes_.size() > kMostBytes) stop(fmt::format("has {} bytes", bytes_.size()));
    if (take(2) != "\x80\x02") stop("does not begin like one");
    for (size_t opcodes = 0;; ++opcodes) {
      const auto code = static_cast<unsigned char>(take(1)[0]);
      if (code == '.') break;
      if (opcodes == kMostOpcodes) stop("holds too many values");
      step(code);
    }
    if (at_ != bytes_.size()) stop("goes on after its end");
    if (stack_.size() != 1 || !stack_.back().is_plain) stop("does not end with one value");
  }

 private:
  [[noreturn]] void stop(const std::string& what) const { refuse("a pickle " + what, where_); }

  std::string_view take(uint64_t n) {
    if (n > bytes_.size() - at_) stop("ends too early");
    at_ += n;
    return bytes_.substr(at_ - n, n);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) stop("ends too early");
    const std::string_view text = take(end + 1 - at_);
    return std::string(text.substr(0, text.size() - 1));
  }

  void push(Value value) { stack_.push_back(std::move(value)); }
  Value pop() {
    if (stack_.empty() || stack_.back().kind == Kind::kMark)
      stop("takes a value that is not there");
    Value value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  Value pop(Kind kind) {
    Value value = pop();
    if (value.kind != kind) stop("takes a value of another kind than it is");
    return value;
  }
  // what was pushed since the last mark, and the mark itself
  std::vector<Value> pop_marked() {
    const auto mark = std::find_if(stack_.rbegin(), stack_.rend(),
                                   [](const Value& v) { return v.kind == Kind::kMark; });
    if (mark == stack_.rend()) stop("lacks a mark");
    std::vector<Value> items(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return items;
  }
  int depth_over(const std::vector<Value>& items) const {
    int depth = 0;
    for (const auto& item : items) depth = std::max(depth, item.depth);
    if (depth >= kDeepest) stop("holds too deep a value");
    return depth + 1;
  }

  Value tuple(std::vector<Value> items) {
    Value value{Kind::kTuple, true, depth_over(items), 0, {}, {}};
    for (const auto& item : items) {
      if (is_open(item)) stop("holds a list or dict without its items");
      value.is_plain = value.is_plain && item.is_plain;
    }
    value.items = std::make_shared<const std::vector<Value>>(std::move(items));
    return value;
  }
  Value tuple(size_t count) {
    std::vector<Value> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return tuple(std::move(items));
  }

  // the items of the list or dict below the mark; each is filled once
  void fill(Kind kind) {
    const auto items = pop_marked();
    if (stack_.empty() || stack_.back().kind != kind || !is_open(stack_.back()))
      stop("fills what is no empty list or dict");
    for (const auto& item : items)
      if (!item.is_plain) stop("holds an item that is no value");
    if (kind == Kind::kDict)
      for (size_t i = 0; i < items.size(); i += 2)
        if (items[i].kind != Kind::kString || i + 1 == items.size())
          stop("holds a dict whose keys are not all strings");
    stack_.back().depth = depth_over(items);
    stack_.back().is_plain = true;
  }

  void put(size_t id) {
    if (stack_.empty() || id != memo_.size()) stop("remembers values out of order");
    if (stack_.back().kind == Kind::kMark || is_open(stack_.back()))
      stop("remembers what is no value");
    memo_.push_back(stack_.back());
  }
  void get(size_t id) {
    if (id >= memo_.size()) stop("names a value that it did not remember");
    // so modules form a tree
    if (memo_[id].kind == Kind::kObject) stop("holds a module twice");
    push(memo_[id]);
  }

  void global() {
    const std::string module = line(), name = line();
    if (module == "torch") {
      for (const auto& type : kStorageTypes)
        if (name == type.name) return push(other(Kind::kStorageType, type.bytes));
    }
    const std::string full = module + "." + name;
    if (full == "torch._utils._rebuild_tensor_v2") return push(other(Kind::kRebuildTensor));
    if (full == "torch.jit._pickle.restore_type_tag") return push(other(Kind::kRestoreTag));
    if (full == "collections.OrderedDict") return push(other(Kind::kHooks));
    if (!full.starts_with("__torch__.") || full.find(".classes.") != std::string::npos)
      stop(fmt::format("names `{}`, which is not allowed", full));
    push(other(Kind::kClass));
  }

  void reduce() {
    const auto arguments = pop(Kind::kTuple).items;
    const Value function = pop();
    switch (function.kind) {
      case Kind::kRebuildTensor:
        return push(tensor(*arguments));
      case Kind::kRestoreTag: {
        if (arguments->size() == 2 && arguments->at(1).kind == Kind::kString) {
          const auto& [kind, text] = std::pair(arguments->at(0).kind, arguments->at(1).text);
          if ((kind == Kind::kList && text == "List[str]") ||
              (kind == Kind::kDict && text == "Dict[str, int]"))
            return push(arguments->at(0));
        }
        stop("holds a list or dict of a type that is not allowed");
      }
      case Kind::kHooks:  // of gradients: none, which LibTorch reads as None
        if (arguments->empty()) return push(plain(Kind::kNone));
        [[fallthrough]];
      default:
        stop("calls what is no function of tensors");
    }
  }

  void expect(const std::vector<Value>& arguments, std::initializer_list<Kind> kinds) const {
    if (!std::equal(arguments.begin(), arguments.end(), kinds.begin(), kinds.end(),
                    [](const Value& value, Kind kind) { return value.kind == kind; }))
      stop("makes a tensor of arguments of other kinds");
  }

  // (storage, offset, sizes, strides, requires_grad, hooks)
  Value tensor(const std::vector<Value>& arguments) {
    expect(arguments,
           {Kind::kStorage, Kind::kInt, Kind::kTuple, Kind::kTuple, Kind::kBool, Kind::kNone});
    Geometry geometry{{}, {}, arguments[1].number, arguments[0].number};
    for (const auto& [from, to] : {std::pair(2, &geometry.sizes), {3, &geometry.strides}})
      for (const auto& item : *arguments[from].items) {
        if (item.kind != Kind::kInt) stop("makes a tensor of sizes that are no numbers");
        to->push_back(item.number);
      }
    if (const std::string why = misfit(geometry); !why.empty())
      stop("holds a tensor that does not lie in its storage: " + why);
    return plain(Kind::kTensor);
  }

  // ("storage", type, name of the member, device, elements)
  Value storage() {
    const auto items = pop(Kind::kTuple).items;
    const std::vector<Value>& arguments = *items;
    expect(arguments,
           {Kind::kString, Kind::kStorageType, Kind::kString, Kind::kString, Kind::kInt});
    const std::string_view name = arguments[2].text;
    const int64_t bytes_each = arguments[1].number, elements = arguments[4].number;
    const auto member = storages_.find(name);
    if (arguments[0].text != "storage" || arguments[3].text != "cpu" || member == storages_.end())
      stop(fmt::format("names a storage that is not there: {:?}", name));
    if (elements < 0 || member->second % bytes_each != 0 ||
        static_cast<uint64_t>(elements) != member->second / bytes_each)
      stop(fmt::format("holds {} elements of {} bytes, and the member {} has {} bytes", elements,
                       bytes_each, name, member->second));
    return other(Kind::kStorage, elements);
  }

  void step(unsigned char code) {
    switch (code) {
      case '(':
        return push(other(Kind::kMark));
      case ')':
        return push(tuple(0));
      case ']':
        return push(other(Kind::kList));
      case '}':
        return push(other(Kind::kDict));
      case 'N':
        return push(plain(Kind::kNone));
      case 0x88:
        return push(plain(Kind::kBool, 1));
      case 0x89:
        return push(plain(Kind::kBool, 0));
      case 'K':
        return push(plain(Kind::kInt, number<uint8_t>()));
      case 'M':
        return push(plain(Kind::kInt, number<uint16_t>()));
      case 'J':
        return push(plain(Kind::kInt, number<int32_t>()));
      case 0x8a:
        if (number<uint8_t>() != 8) stop("holds a number of another length than 8 bytes");
        return push(plain(Kind::kInt, number<int64_t>()));
      case 'G':
        return take(8), push(plain(Kind::kFloat));
      case 'X': {
        Value value = plain(Kind::kString);
        value.text = take(number<uint32_t>());
        return push(value);
      }
      case 't':
        return push(tuple(pop_marked()));
      case 0x85:
        return push(tuple(1));
      case 0x86:
        return push(tuple(2));
      case 0x87:
        return push(tuple(3));
      case 'e':
        return fill(Kind::kList);
      case 'u':
        return fill(Kind::kDict);
      case 'q':
        return put(number<uint8_t>());
      case 'r':
        return put(number<uint32_t>());
      case 'h':
        return get(number<uint8_t>());
      case 'j':
        return get(number<uint32_t>());
      case 'c':
        return global();
      case 0x81:
        if (!pop(Kind::kTuple).items->empty()) stop("makes an object of arguments");
        pop(Kind::kClass);
        return push(other(Kind::kNewObject));
      case 'b': {
        Value state = pop(Kind::kDict);
        if (!state.is_plain) stop("makes an object without its state");
        pop(Kind::kNewObject);
        state.kind = Kind::kObject;
        return push(state);
      }
      case 'R':
        return reduce();
      case 'Q':
        return push(storage());
      default:
        stop(fmt::format("holds the opcode 0x{:02x}, which is not allowed", code));
    }
  }

  std::string_view bytes_;
  const StorageBytes& storages_;
  const std::string& where_;
  size_t at_ = 0;
  std::vector<Value> stack_, memo_;
};

}  // namespace

std::string misfit(const Geometry& g) {
  if (g.sizes.size() != g.strides.size())
    return fmt::format("{} sizes and {} strides", g.sizes.size(), g.strides.size());
  auto describe = [&](const char* what) {
    return fmt::format("{}: sizes [{}], strides [{}], offset {} in {} elements", what,
                       fmt::join(g.sizes, ", "), fmt::join(g.strides, ", "), g.offset, g.elements);
  };
  const bool is_empty = std::find(g.sizes.begin(), g.sizes.end(), 0) != g.sizes.end();
  if (g.offset < 0 || g.elements < 0 || g.offset > g.elements ||
      (!is_empty && g.offset == g.elements))
    return describe("it begins outside");
  // compared at each step, so that no product or sum of the next passes 2^127
  const int64_t most = is_empty ? kMostOfNothing : g.elements;
  __int128 count = 1, last = g.offset;
  for (size_t i = 0; i < g.sizes.size(); ++i) {
    if (g.sizes[i] < 0 || g.strides[i] < 0) return describe("a size or stride is below 0");
    count *= std::max<int64_t>(g.sizes[i], 1);
    if (count > most) return describe("it has more elements than its storage");
    if (is_empty) continue;
    last += static_cast<__int128>(g.sizes[i] - 1) * g.strides[i];
    if (last >= g.elements) return describe("it ends outside");
  }
  return "";
}

void scan_pickle(std::string_view bytes, const StorageBytes& storages, const std::string& where) {
  PickleScan(bytes, storages, where).run();
}

}  // namespace lehr::artefact
