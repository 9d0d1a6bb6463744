"""mutation_test: the conformance list must catch a change to the engine's source."""

# Every file of //core/cpu:sources and //core/search:engine_sources.
_HEADERS = [
    "batch_search.h",
    "candidates.h",
    "cpu_engine.h",
    "cpu_warm_docs.h",
    "few_queries_gemm.h",
    "float32_screen.h",
    "gemm.h",
    "huge_pages.h",
    "index_range.h",
    "int8_kernels.h",
    "int8_screen.h",
    "outward_rounding.h",
    "ranking.h",
    "rescore.h",
    "rounded_score.h",
    "screen.h",
    "screen_kernels.h",
    "thread_pool.h",
]
_SOURCES = [
    "batch_rescore.cc",
    "batch_search.cc",
    "candidates.cc",
    "cpu_engine.cc",
    "cpu_warm_docs.cc",
    "float32_screen.cc",
    "gemm.cc",
    "huge_pages.cc",
    "int8_screen.cc",
    "rescore.cc",
    "rounded_score.cc",
    "thread_pool.cc",
]

# foreach_target.h includes these once more for every instruction set.
_TEXTUAL_SOURCES = [
    "few_queries_gemm.cc",
    "int8_kernels.cc",
    "screen_kernels.cc",
]

def mutation_test(name, patch = None):
    """Tests that the engine with `patch` fails the conformance list, or without a patch passes it.

    Args:
      name: of the mutant; its test is called `{name}_test`.
      patch: a file of this package, a unified diff from the workspace's root.
    """
    files = [name + "/" + file for file in _HEADERS + _SOURCES + _TEXTUAL_SOURCES]
    native.genrule(
        name = name + "_sources",
        testonly = True,
        srcs = [
            "//core/cpu:sources",
            "//core/search:engine_sources",
        ] + ([patch] if patch else []),
        outs = files,
        cmd = "/usr/bin/python3 $(location make_mutant.py) %s %s $(RULEDIR)/%s $(locations //core/cpu:sources) $(locations //core/search:engine_sources)" %
              (name, "$(location %s)" % patch if patch else "-", name),
        message = "Changing the engine:",
        tools = ["make_mutant.py"],
    )
    native.cc_library(
        name = name + "_engine",
        testonly = True,
        srcs = [name + "/" + file for file in _SOURCES + _TEXTUAL_SOURCES],
        hdrs = [name + "/" + file for file in _HEADERS],
        # Many copies are built and each runs for seconds: little optimisation is the quickest.
        copts = [
            "-O1",
            "-g0",
        ],
        linkopts = [
            "-lgomp",
            "-lpthread",
        ],
        # Not of its own under //...: once as what its test needs is enough.
        tags = ["manual"],
        textual_hdrs = [name + "/" + file for file in _TEXTUAL_SOURCES],
        deps = [
            "//core/io:row_source",
            "//core/matrix:aligned_vector",
            "//core/matrix:convert",
            "//core/matrix:finite",
            "//core/matrix:matrix_view",
            "//core/search",
            "//core/search:engine",
            "//core/search:exact_score",
            "//core/search:float_environment",
            "//core/search:isa",
            "//core/search:planner",
            "//core/search:row_kernels",
            "@debian//:absl_status",
            "@debian//:dnnl",
            "@debian//:fmt",
            "@debian//:highway",
        ],
    )
    native.cc_test(
        name = name + "_test",
        size = "medium",
        timeout = "long",
        srcs = ["mutation_test.cc"],
        args = ["--expect=" + ("caught" if patch else "clean")],
        local_defines = [
            "TINY_KNN_MUTANT=" + name,
            "TINY_KNN_MUTANT_ENGINE=\\\"tests/mutation/%s/cpu_engine.h\\\"" % name,
        ],
        deps = [
            ":%s_engine" % name,
            "//core/search:engine",
            "//tests/conformance:conformance_cases",
            "//tests/conformance:engine_table",
            "//tests/conformance:run_case",
        ],
    )
