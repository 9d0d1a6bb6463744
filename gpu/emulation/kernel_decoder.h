// What decodes a parsed kernel to a Program: it lays out the register file, resolves operands to
// slots and asks each family of instructions whether it knows a statement.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gpu/emulation/device_memory.h"
#include "gpu/emulation/program.h"
#include "gpu/emulation/ptx_program.h"

namespace tiny_knn::emulation {

// Device addresses of a module's .global and .const variables, by name.
using VariableAddresses = std::unordered_map<std::string, uint64_t>;

// The program of `kernel`, which lies in `module`; both outlive it. An instruction that the
// emulation does not know decodes to one that reports itself when it is executed.
std::unique_ptr<Program> DecodeKernel(const PtxModule& module, const PtxKernel& kernel,
                                      const VariableAddresses& variables,
                                      const AddressSpace& space);

// Used by the families below. A method that cannot do what is asked throws Unsupported.
class KernelDecoder {
 public:
  struct Unsupported {
    std::string what;
  };

  KernelDecoder(const PtxModule& module, const PtxKernel& kernel,
                const VariableAddresses& variables, const AddressSpace& space);

  // Where the 32 values of a source lie, as values of `type`: a register of another width is
  // narrowed or widened first.
  Slot Source(const PtxOperand& operand, PtxType type);
  // Where to write values of `type`; what is narrower than the register is extended to it
  // afterwards.
  Slot Destination(const PtxOperand& operand, PtxType type);
  // A source that is a predicate: its slot, and in `operation` whether it is negated.
  Slot PredicateSource(const PtxOperand& operand, int index, Operation* operation);
  // A constant in all lanes.
  Slot Constant(uint64_t bits, int bytes);
  // Room for 32 values that nobody else uses.
  Slot Temporary(int bytes);

  PtxType RegisterType(const PtxOperand& operand) const;
  // Fills in the address of a memory operand, whose state space is already in `operation`.
  void Address(const PtxOperand& operand, Operation* operation);

  // The operation of the statement that is decoded, with its predicate; more than one may be
  // emitted.
  Operation New(Handler run) const;
  void Emit(const Operation& operation) { program_->code.push_back(operation); }

  const PtxKernel& kernel() const { return kernel_; }
  const AddressSpace& space() const { return space_; }
  std::unique_ptr<Program> Decode();

 private:
  struct Named {
    uint64_t value = 0;
    StateSpace space = StateSpace::kGeneric;
  };
  void LayOutRegisters();
  void LayOutVariables();
  void ResolveBranches();
  void DecodeStatement(const PtxInstruction& statement);
  // The address of a variable or parameter within its state space.
  const Named* FindNamed(const std::string& name) const;

  const PtxModule& module_;
  const PtxKernel& kernel_;
  const AddressSpace& space_;
  std::unique_ptr<Program> program_;
  std::vector<Slot> register_slots_;
  std::unordered_map<std::string, Named> named_;
  std::map<std::pair<uint64_t, int>, Slot> constants_;  // bits, bytes -> slot
  std::vector<std::pair<Slot, std::pair<uint64_t, int>>> constant_values_;
  std::vector<uint32_t> operation_of_statement_;
  std::vector<Operation> after_;  // extensions of the destination
  uint32_t statement_ = 0;
};

// The families: each emits the operations of a statement that it knows, and says whether it did.
bool DecodeArithmetic(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeFloatArithmetic(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeBits(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeComparison(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeConversion(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeMove(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeMemory(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeAtomic(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeCollective(KernelDecoder& decoder, const PtxInstruction& statement);
bool DecodeControl(KernelDecoder& decoder, const PtxInstruction& statement);

// The last modifier of a statement that names a type. Throws Unsupported where there is none.
PtxType TypeOf(const PtxInstruction& statement);

}  // namespace tiny_knn::emulation
