// A stand-in for the few functions of cuBLASLt that products use, on host memory. It multiplies as
// NVIDIA's reference manual and header say (column-major, transposed operands, epilogues), in
// double with one rounding at the end, and refuses what they refuse: auxiliary matrices that are
// not aligned, pointers less aligned than the preference said, a workspace too small, an algorithm
// that was proposed for another product. It says nothing about speed or about a GPU's bits.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <set>

namespace cublaslt_host {

struct Record {
  int asked = 0;                   // cublasLtMatmulAlgoGetHeuristic
  int multiplied = 0;              // cublasLtMatmul that succeeded
  int refused = 0;                 // and that did not
  int alive = 0;                   // descriptors
  uint32_t reduction_schemes = 0;  // allowed by the last question
  uint64_t workspace_bytes = 0;    // largest of the proposals taken
  std::set<uint32_t> epilogues;    // multiplied with
  std::set<int> computed_in;       // cublasComputeType_t
};
Record record();  // since `reset`
void reset();

// The first so many proposals of every question do not run.
void refuse_proposals(int first);
// Nothing is proposed for this epilogue; 0: for every epilogue something is.
void refuse_epilogue(uint32_t epilogue);

}  // namespace cublaslt_host
