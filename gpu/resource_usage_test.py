"""Reads what ptxas says of every kernel: nothing is spilled, and blocks fit a multiprocessor at least twice.

usage: resource_usage_test.py REPORT...      prints a table, which docs/gpu.md quotes
"""

import re
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
# The name of the function, then what a template was given: 12FilterKernelINS0_10FourFloatsEEE...
NAME = re.compile(r"\d([A-Z][A-Za-z]*Kernel)(?:INS0_\d+([A-Za-z0-9]*?)EEE)?")
# Of every GPU from compute capability 7.5 on, per multiprocessor and per block.
REGISTERS = 65536
SHARED_BYTES = 48 * 1024
THREADS = 256


def kernels(report):
    """(kernel, architecture, stack bytes, spilled bytes, registers, shared bytes) of each entry function."""
    for part in report.split("Compiling entry function ")[1:]:
        mangled, arch = ENTRY.match("Compiling entry function " + part).groups()
        stack, stores, loads = map(int, SPILLS.search(part).groups())
        shared = SHARED.search(part)
        name, variant = NAME.search(mangled).groups()
        registers = int(USED.search(part).group(1))
        yield name + (f"<{variant}>" if variant else ""), int(arch), stack, stores + loads, registers, int(shared.group(1)) if shared else 0


def main():
    found = {}
    failures = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            for name, arch, stack, spilled, registers, shared in kernels(file.read()):
                found.setdefault(name, []).append((arch, registers, shared))
                if stack or spilled:
                    failures.append(f"{name} for sm_{arch}: {stack} bytes of stack, {spilled} bytes spilled")
                if registers * THREADS * 2 > REGISTERS:
                    failures.append(f"{name} for sm_{arch}: {registers} registers, so two blocks of {THREADS} do not fit")
                if shared > SHARED_BYTES:
                    failures.append(f"{name} for sm_{arch}: {shared} bytes of shared memory")
    print(f"{'kernel':<34} {'registers':>9} {'shared bytes':>12}   architectures")
    for name, entries in sorted(found.items()):
        registers = sorted({registers for _, registers, _ in entries})
        shared = sorted({shared for _, _, shared in entries})
        archs = ", ".join(str(arch) for arch, _, _ in sorted(entries))
        print(f"{name:<34} {'-'.join({str(registers[0]): 1, str(registers[-1]): 1}):>9} {'-'.join({str(shared[0]): 1, str(shared[-1]): 1}):>12}   {archs}")
    if len(found) < 8 or any(len(entries) != len(found["SettleKernel"]) for entries in found.values()):
        failures.append(f"only {len(found)} kernels were found, or not all for the same architectures")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
