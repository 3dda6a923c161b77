// The linear layers' cases, run by the test of the op on whatever device there is and by the test
// of the launcher on a stand-in for cuBLASLt. ATen in double defines, with what is stored between
// two products rounded as it is stored.
#pragma once

#include "kernels/linear/linear_op.h"
#include "tests/kernels/agreement.h"

namespace lehr::kernels {

struct LinearShape {
  int64_t rows, in, between, out;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(between) + "x" +
           std::to_string(out);
  }
};

inline std::vector<LinearShape> linear_shapes() {
  return {
      {0, 8, 16, 8},     // no rows
      {1, 1, 1, 1},      //
      {3, 5, 7, 2},      // GELU's input cannot be kept by cuBLASLt: 7 is no multiple of 8
      {6, 8, 16, 8},     //
      {33, 17, 24, 9},   // odd, but for the width between
      {40, 32, 128, 32}  //
  };
}

enum class Memory { kRowMajor, kTransposed, kSliced };  // of the weights

// x, weight_1, bias_1, weight_2, bias_2; all leaves
inline Tensors linear_inputs(const LinearShape& shape, Float type, at::Device device) {
  const auto weight = [&](int64_t out, int64_t in, uint64_t seed) {
    return random_tensor({out, in}, seed, type, device, 0, 1 / std::sqrt(static_cast<float>(in)));
  };
  Tensors all = {random_tensor({shape.rows, shape.in}, 1, type, device),
                 weight(shape.between, shape.in, 2),
                 random_tensor({shape.between}, 3, type, device),
                 weight(shape.out, shape.between, 4), random_tensor({shape.out}, 5, type, device)};
  for (at::Tensor& tensor : all) tensor.requires_grad_();
  return all;
}

// the same numbers otherwise in memory
inline at::Tensor laid_out(const at::Tensor& x, Memory memory) {
  if (memory == Memory::kTransposed) return x.t().contiguous().t();
  if (memory == Memory::kSliced) return at::cat({x, x}, 1).slice(1, x.size(1));
  return x;
}

inline Computation linear_by_lehr(Memory memory) {
  return [memory](const Tensors& in) -> Tensors {
    return {kernels::linear(laid_out(in[0], memory), laid_out(in[1], memory), in[2])};
  };
}
inline Computation mlp_by_lehr(Memory memory) {
  return [memory](const Tensors& in) -> Tensors {
    return {linear_gelu_linear(laid_out(in[0], memory), laid_out(in[1], memory), in[2],
                               laid_out(in[3], memory), in[4])};
  };
}
inline Tensors linear_by_aten(const Tensors& in) { return {at::linear(in[0], in[1], in[2])}; }
// `apart`: the first bias is added, in GELU, to a product that was stored
inline Computation mlp_by_aten(Float type, bool apart = false) {
  return [type, apart](const Tensors& in) -> Tensors {
    const auto stored = [&](const at::Tensor& x) {
      return x.to(scalar_type(type)).to(at::kDouble);
    };
    const at::Tensor before =
        apart ? stored(at::linear(in[0], in[1])) + in[2] : stored(at::linear(in[0], in[1], in[2]));
    return {at::linear(stored(at::gelu(before, "tanh")), in[3], in[4])};
  };
}

// Of two products, in low precision: numbers stored between them are rounded to either side where
// sums are taken in another order, and GELU reads what was rounded or what was not; some units in
// the last place, of the largest number, as they are summed on.
inline Tolerance mlp_tolerance(Float type) {
  switch (type) {
    case Float::kFloat32:
      return {4e-6, 4e-6};
    case Float::kBFloat16:
      return {0x1p-7, 0x1p-8};
    case Float::kFloat16:
      return {0x1p-10, 0x1p-11};
  }
  return {0, 0};
}

inline void expect_linear_agrees_in_every_case(at::Device device) {
  for (const LinearShape& shape : linear_shapes())
    for (Float type : all_float_types())
      for (Memory memory : {Memory::kRowMajor, Memory::kTransposed, Memory::kSliced}) {
        const Tensors in = linear_inputs(shape, type, device);
        const std::string what = shape.name() + " " + name_of(type) + " memory " +
                                 std::to_string(static_cast<int>(memory));
        expect_agreement(linear_by_lehr(memory), linear_by_aten, {in[0], in[1], in[2]}, what);
        expect_agreement(mlp_by_lehr(memory), mlp_by_aten(type), in, what, mlp_tolerance(type));
      }
}

}  // namespace lehr::kernels
