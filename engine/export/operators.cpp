#include "engine/export/operators.h"

#include <set>

namespace lehr::artefact {
namespace {

const std::set<std::string> kAten = {
    // arithmetic, elementwise
    "abs", "add", "add_", "addcmul", "addcdiv", "bitwise_and", "bitwise_not", "bitwise_or",
    "bitwise_xor", "ceil", "clamp", "clamp_", "clamp_max", "clamp_min", "cos", "div", "div_", "erf",
    "exp", "expm1", "floor", "floor_divide", "floordiv", "fmod", "log", "log10", "log1p", "log2",
    "mul", "mul_", "nan_to_num", "neg", "pow", "reciprocal", "remainder", "round", "rsqrt", "rsub",
    "sigmoid", "sign", "sin", "sqrt", "square", "sub", "sub_", "tan", "tanh", "trunc", "where",
    "lerp", "logit", "logaddexp",
    // comparison and logic
    "eq", "ge", "gt", "le", "lt", "ne", "isfinite", "isinf", "isnan", "logical_and", "logical_not",
    "logical_or", "logical_xor", "maximum", "minimum", "masked_fill", "masked_fill_", "all", "any",
    "__and__", "__or__", "__not__", "__is__", "__isnot__", "__contains__", "equal",
    // activations
    "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "silu_", "mish",
    "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "softplus", "log_sigmoid", "prelu", "glu",
    "threshold", "softmax", "log_softmax", "logsumexp", "dropout", "feature_dropout",
    // reductions and order
    "sum", "mean", "std", "var", "prod", "norm", "linalg_vector_norm", "amax", "amin", "max", "min",
    "argmax", "argmin", "cumsum", "cumprod", "topk", "sort", "argsort", "median", "count_nonzero",
    // matrices
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "outer", "einsum",
    "t", "bilinear", "scaled_dot_product_attention", "cross", "tril", "triu", "diagonal",
    // convolutions, pooling, images
    "_convolution", "convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "pad", "constant_pad_nd", "reflection_pad2d",
    "replication_pad2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "pixel_shuffle", "pixel_unshuffle", "im2col", "channel_shuffle",
    // normalisation
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",  // lookups
    "embedding", "embedding_bag", "gather", "index", "index_select", "index_fill", "index_fill_",
    "index_put", "index_put_", "one_hot", "scatter", "scatter_", "scatter_add", "take", "bucketize",
    "searchsorted", "select", "slice", "narrow", "masked_select", "nonzero", "roll", "flip",
    "repeat_interleave",
    // recurrent layers
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell",
    // shape
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "squeeze_",
    "unsqueeze", "unsqueeze_", "expand", "expand_as", "permute", "transpose", "movedim", "cat",
    "concat", "stack", "split", "split_with_sizes", "chunk", "unbind", "tile", "repeat",
    "contiguous", "clone", "detach", "alias", "size", "dim", "numel", "meshgrid",
    "broadcast_tensors", "hstack", "vstack", "copy_",
    // creation and types
    "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
    "new_full", "arange", "linspace", "eye", "tensor", "to", "type_as", "scalar_tensor",
    "as_tensor", "fill_", "zero_", "ScalarImplicit", "FloatImplicit", "IntImplicit", "Int", "Float",
    "Bool", "item", "device",
    // lists, dictionaries and strings of the wrapper
    "len", "append", "extend", "list", "dict", "get", "keys", "values", "items", "insert", "pop",
    "__getitem__", "_set_item", "str", "strip", "lstrip", "rstrip", "lower", "upper", "startswith",
    "endswith", "replace", "find", "join", "ord", "isdigit", "isspace", "format"};

const std::set<std::string> kPrim = {
    "Constant",      "GetAttr",    "CallMethod", "TupleConstruct", "TupleUnpack",   "TupleIndex",
    "ListConstruct", "ListUnpack", "If",         "Loop",           "DictConstruct", "NumToTensor",
    "dtype",         "device",     "layout",     "RaiseException", "min",           "max",
    "abs",           "Param",      "Return",     "requires_grad",  "is_cuda"};

}  // namespace

const std::set<std::string>& allowed_aten() { return kAten; }
const std::set<std::string>& allowed_prim() { return kPrim; }

}  // namespace lehr::artefact
