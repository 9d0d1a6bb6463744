"""cuda_mutation_tests: the conformance list or the emulation must catch each change to the CUDA engine's source."""

load("//third_party/cuda:cuda_library.bzl", "cuda_library", "cuda_test")

_HOST_SOURCES = [
    "cublas_gemm.cc",
    "cuda_engine.cc",
    "cuda_raii.cc",
    "device_batch.cc",
    "device_batch_state.cc",
    "device_context.cc",
    "device_docs.cc",
    "device_plan.cc",
    "device_plan_text.cc",
    "doc_uploader.cc",
    "doubt_resolver.cc",
    "query_bounds.cc",
]
_KERNELS = [
    "filter_kernels",
    "prepare_kernels",
    "rank_kernels",
    "rescore_kernels",
    "select_kernels",
]
_ARCH = "75"

def _is_kernel(file):
    return file.endswith(".cu")

def _host_object(name, source):
    """One source of the host's part, compiled, so that another can stand in its place."""
    native.cc_library(
        name = name,
        testonly = True,
        srcs = [source],
        # They need each other in circles.
        alwayslink = True,
        copts = ["-O1", "-g0"],
        linkstatic = True,
        tags = ["manual"],
        deps = ["//gpu:cuda_engine_headers"],
    )

def _test(name, objects, args):
    cuda_test(
        name = name + "_test",
        size = "medium",
        srcs = [],
        args = args,
        linkstatic = True,
        deps = [":cuda_mutation_test_main", "//gpu:emulated_cublas_api"] + objects,
    )

def cuda_mutation_tests(mutants, cases):
    """For each mutant, a test that the engine with `NAME.patch` is caught; and of the same cases that the unchanged engine is not.

    Args:
      mutants: name of the mutant -> files to write: those that its patch changes, and those that include them.
      cases: name of the mutant -> what the names of the cases hold that are run, for a change that few notice.
    """
    native.cc_library(
        name = "cuda_mutation_test_main",
        testonly = True,
        srcs = ["cuda_mutation_test.cc"],
        alwayslink = True,
        linkstatic = True,
        # There may be no toolkit.
        tags = ["manual"],
        deps = [
            "//gpu:cuda_engine_headers",
            "//gpu/emulation",
            "//gpu/emulation:violation",
            "//tests/conformance:conformance_cases",
            "//tests/conformance:run_case",
            "//tests/cuda:cuda_engines",
        ],
    )
    unpatched = {}
    for file in _HOST_SOURCES:
        unpatched[file] = ":unpatched_" + file
        _host_object("unpatched_" + file, "//gpu:" + file)
    for kernels in _KERNELS:
        unpatched[kernels + ".cu"] = "//gpu:%s_emulated_%s" % (kernels, _ARCH)
    _test("unpatched", unpatched.values(), ["--expect=clean"])
    for name, text in cases.items():
        _test("unpatched_" + name, unpatched.values(), ["--expect=clean", "--cases=" + text])
    for name, files in mutants.items():
        sources = ["//gpu:" + file for file in files]
        native.genrule(
            name = name + "_sources",
            testonly = True,
            srcs = [name + ".patch"] + sources,
            outs = [name + "/" + file for file in files],
            cmd = "/usr/bin/python3 $(location //tests/mutation:make_mutant.py) --alone $(location %s.patch) '%s' $(RULEDIR)/%s %s" %
                  (name, " ".join(files), name, " ".join(["$(location %s)" % source for source in sources])),
            message = "Changing the CUDA engine:",
            tools = ["//tests/mutation:make_mutant.py"],
        )
        objects = dict(unpatched)
        headers = [name + "/" + file for file in files if file.endswith(".cuh")]
        for file in files:
            target = "%s_%s" % (name, file.partition(".")[0])
            if _is_kernel(file):
                cuda_library(
                    name = target,
                    testonly = True,
                    srcs = [name + "/" + file],
                    hdrs = headers,
                    copts = ["--expt-relaxed-constexpr"],
                    tags = ["manual"],
                    deps = ["//gpu:%s_headers" % kernels for kernels in _KERNELS],
                )
                objects[file] = ":%s_emulated_%s" % (target, _ARCH)
            elif file.endswith(".cc"):
                _host_object(target, name + "/" + file)
                objects[file] = ":" + target
        _test(name, objects.values(), ["--expect=caught"] + (["--cases=" + cases[name]] if name in cases else []))
