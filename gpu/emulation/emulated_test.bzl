"""emulated_test: a test of CUDA code on the emulated GPU, once for each PTX architecture."""

load("//third_party/cuda:cuda_library.bzl", "EMULATED_ARCHS", "cuda_test")

def emulated_test(name, srcs, kernels, deps = [], size = "small", tags = []):
    """Tests NAME_75 and NAME_90. Without a toolkit they are skipped, and say why.

    Args:
      name: ends in _test.
      srcs: as of a cc_test.
      kernels: the cuda_library targets to run; their emulated variants are linked.
      deps: further libraries; GoogleTest and the emulation are there.
      size: as of a cc_test.
      tags: as of a cc_test.
    """
    # Compiled once; what is linked decides.
    native.cc_library(
        name = name + "_sources",
        testonly = True,
        srcs = srcs,
        alwayslink = True,
        linkstatic = True,
        # There may be no toolkit.
        tags = ["manual"],
        deps = deps + [each + "_headers" for each in kernels] + [
            "//gpu/emulation",
            "//gpu/emulation:violation",
            "@debian//:gmock",
            "@debian//:gtest_main",
        ],
    )
    for arch in EMULATED_ARCHS:
        cuda_test(
            name = "%s_%s" % (name, arch),
            size = size,
            srcs = [],
            tags = tags,
            deps = [":%s_sources" % name] + ["%s_emulated_%s" % (each, arch) for each in kernels],
        )
