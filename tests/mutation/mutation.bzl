"""mutation_tests: the conformance list must catch each change to the engine's source."""

# Every file of //core/cpu:sources and //core/search:engine_sources.
_HEADERS = [
    "batch_search.h",
    "block_rows.h",
    "candidates.h",
    "certain_rounding.h",
    "chunk_rows.h",
    "cpu_engine.h",
    "cpu_warm_docs.h",
    "few_queries_gemm.h",
    "float32_dots.h",
    "float32_screen.h",
    "float32_squares-inl.h",
    "float32_squares.h",
    "gemm.h",
    "huge_pages.h",
    "index_range.h",
    "int8_kernels.h",
    "int8_screen.h",
    "int8_tiles.h",
    "outward_rounding.h",
    "ranking.h",
    "rescore.h",
    "rounded_score.h",
    "screen.h",
    "screen_kernels.h",
    "screen_rules.h",
    "thread_pool.h",
]
_SOURCES = [
    "batch_guess.cc",
    "batch_one_pass.cc",
    "batch_refine.cc",
    "batch_rescore.cc",
    "batch_search.cc",
    "batch_state.cc",
    "batch_waiting.cc",
    "block_rows.cc",
    "candidates.cc",
    "chunk_rows.cc",
    "cpu_engine.cc",
    "cpu_warm_docs.cc",
    "float32_screen.cc",
    "gemm.cc",
    "huge_pages.cc",
    "int8_screen.cc",
    "int8_tiles.cc",
    "rescore.cc",
    "rounded_score.cc",
    "thread_pool.cc",
]

_TEXTUAL_SOURCES = [
    "few_queries_gemm.cc",
    "float32_dots.cc",
    "int8_kernels.cc",
    "screen_kernels.cc",
]

_FILES = _HEADERS + _SOURCES + _TEXTUAL_SOURCES

# Of headers that a patch changes: what includes them, through any number of steps. make_mutant.py
# stops the build where one is missing. Everything else is compiled once, for all mutants.
_INCLUDERS = {
    "certain_rounding.h": ["rounded_score.cc"],
    "ranking.h": [
        "batch_guess.cc",
        "batch_one_pass.cc",
        "batch_refine.cc",
        "batch_rescore.cc",
        "batch_search.cc",
        "batch_search.h",
        "batch_state.cc",
        "batch_waiting.cc",
        "candidates.cc",
        "candidates.h",
        "cpu_engine.cc",
        "rescore.cc",
        "rescore.h",
    ],
    "screen_rules.h": [
        "float32_screen.cc",
        "float32_screen.h",
        "int8_screen.cc",
        "int8_screen.h",
    ],
}

# Many programs are built and each runs for seconds: little optimisation is the quickest.
_COPTS = ["-O1", "-g0"]

def _mutant_sources(name, outs, patch = None):
    """Writes the files `outs` of the engine, or those of them that `patch` changes, to `name`/."""
    native.genrule(
        name = name + "_sources",
        testonly = True,
        srcs = [
            "//core/cpu:sources",
            "//core/search:engine_sources",
        ] + ([patch] if patch else []),
        outs = [name + "/" + out for out in outs],
        cmd = "/usr/bin/python3 $(location make_mutant.py) %s '%s' $(RULEDIR)/%s $(locations //core/cpu:sources) $(locations //core/search:engine_sources)" %
              ("$(location %s)" % patch if patch else "-", " ".join(outs), name),
        message = "Changing the engine:",
        tools = ["make_mutant.py"],
    )

def _objects(name, folder, file, written):
    """One source of `folder`, compiled, so that another can stand in its place. `written`: what lies there, the rest in "unpatched"."""
    native.cc_library(
        name = name,
        testonly = True,
        srcs = [folder + "/" + file],
        hdrs = [(folder if header in written else "unpatched") + "/" + header for header in _HEADERS],
        copts = _COPTS,
        linkopts = [
            "-lgomp",
            "-lpthread",
        ],
        linkstatic = True,
        # Not of its own under //...: once as what its tests need is enough.
        tags = ["manual"],
        # foreach_target.h includes it once more for every instruction set.
        textual_hdrs = [folder + "/" + file] if file in _TEXTUAL_SOURCES else [],
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
        # The files need each other in circles.
        alwayslink = True,
    )

def _mutant_test(name, objects, args):
    native.cc_test(
        name = name + "_test",
        size = "medium",
        timeout = "long",
        args = args,
        linkstatic = True,
        deps = [":mutation_test_main"] + objects,
    )

def mutation_tests(mutants, first_cases):
    """For each mutant, a test that the engine with `NAME.patch` fails the conformance list.

    And one, unpatched_test, that the copies of its sources as they are pass it.

    Args:
      mutants: name of the mutant -> the files that its patch changes, without their folders. What
        includes a changed header is compiled again.
      first_cases: name of the mutant -> what the names of the cases hold that are run before all
        others, for a change that the list would notice late.
    """
    unpatched = {}
    _mutant_sources("unpatched", _FILES)
    for file in _SOURCES + _TEXTUAL_SOURCES:
        unpatched[file] = ":unpatched_" + file
        _objects("unpatched_" + file, "unpatched", file, _FILES)
    _mutant_test("unpatched", unpatched.values(), ["--expect=clean"])
    for name, changed in mutants.items():
        outs = list(changed)
        for file in changed:
            outs += [each for each in _INCLUDERS.get(file, []) if each not in outs]
        _mutant_sources(name, outs, name + ".patch")
        objects = dict(unpatched)
        for file in outs:
            if file in _HEADERS:
                continue
            objects[file] = ":%s_%s" % (name, file)
            _objects(name + "_" + file, name, file, outs)
        first = ["--first=" + first_cases[name]] if name in first_cases else []
        _mutant_test(name, objects.values(), ["--expect=caught"] + first)
