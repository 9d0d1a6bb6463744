"""fuzz_test: a libFuzzer target, built by clang++-14 beside the C++ toolchain of the build.

    fuzz_test(
        name = "npy_fuzz_test",        # corpus: testdata/fuzz/npy/*, dictionary: testdata/fuzz/npy.dict
        src = "npy_fuzz_test.cc",      # defines LLVMFuzzerTestOneInput
        deps = [":npy"],               # cc_library targets, compiled again, once for all fuzz tests
        seconds = 60,                  # how long the test looks for new inputs
    )

The test runs every input of the corpus, then new ones for the given time, under AddressSanitizer and
UndefinedBehaviorSanitizer. It is tagged "fuzz"; tools/fuzz runs one by hand and keeps what it finds.
"""

_COMPILER = "/usr/bin/clang++-14"
_FLAGS = [
    "-std=c++20",
    "-gline-tables-only",
    "-O1",
    "-fno-omit-frame-pointer",
    "-ffp-contract=off",
    "-fsanitize=fuzzer,address,undefined",
    "-fno-sanitize-recover=all",
    "-iquote",
    ".",
]

_FuzzInfo = provider(
    doc = "A C++ library and all it depends on, compiled for fuzzing.",
    fields = {
        "objects": "depset of object files",
        "headers": "depset of headers in this repository",
        "linkopts": "depset of linker flags",
    },
)

def _compile(ctx, source, headers):
    object_file = ctx.actions.declare_file("_fuzz/%s/%s.o" % (ctx.label.name, source.basename))
    ctx.actions.run(
        executable = _COMPILER,
        arguments = _FLAGS + ["-c", source.path, "-o", object_file.path],
        inputs = depset([source], transitive = [headers]),
        outputs = [object_file],
        mnemonic = "FuzzCompile",
        use_default_shell_env = True,
    )
    return object_file

# An aspect, so that fuzz tests share what they have in common.
def _fuzz_aspect_impl(target, ctx):
    rule = ctx.rule
    external = target.label.workspace_root != ""
    files = []
    for attribute in ["srcs", "hdrs"]:
        files += getattr(rule.files, attribute, [])
    deps = [dep[_FuzzInfo] for dep in getattr(rule.attr, "deps", []) if _FuzzInfo in dep]
    headers = depset(
        [f for f in files if f.extension == "h" and not external],
        transitive = [dep.headers for dep in deps],
    )
    return [_FuzzInfo(
        objects = depset(
            [_compile(ctx, f, headers) for f in files if f.extension == "cc"],
            transitive = [dep.objects for dep in deps],
        ),
        headers = headers,
        linkopts = depset(
            getattr(rule.attr, "linkopts", []),
            transitive = [dep.linkopts for dep in deps],
            order = "topological",
        ),
    )]

_fuzz_aspect = aspect(
    implementation = _fuzz_aspect_impl,
    attr_aspects = ["deps"],
)

def _fuzz_test_impl(ctx):
    deps = [dep[_FuzzInfo] for dep in ctx.attr.deps]
    objects = depset(
        [_compile(ctx, ctx.file.src, depset(transitive = [dep.headers for dep in deps]))],
        transitive = [dep.objects for dep in deps],
    )
    fuzzer = ctx.actions.declare_file(ctx.label.name + ".fuzzer")
    linkopts = depset(transitive = [dep.linkopts for dep in deps], order = "topological")
    ctx.actions.run(
        executable = _COMPILER,
        arguments = _FLAGS + [o.path for o in objects.to_list()] + linkopts.to_list() +
                    ["-o", fuzzer.path],
        inputs = objects,
        outputs = [fuzzer],
        mnemonic = "FuzzLink",
        use_default_shell_env = True,
    )
    script = ctx.actions.declare_file(ctx.label.name)
    dictionary = "-dict=" + ctx.file.dictionary.short_path if ctx.file.dictionary else ""
    ctx.actions.write(
        output = script,
        is_executable = True,
        content = """#!/bin/bash
set -eu
mkdir -p "$TEST_TMPDIR/found"
exec {fuzzer} -max_total_time={seconds} -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 {dictionary} \\
  -artifact_prefix="${{TEST_UNDECLARED_OUTPUTS_DIR:-$TEST_TMPDIR}}/" "$TEST_TMPDIR/found" {corpus}
""".format(
            fuzzer = fuzzer.short_path,
            seconds = ctx.attr.seconds,
            dictionary = dictionary,
            corpus = ctx.file.corpus_marker.dirname if ctx.file.corpus_marker else "",
        ),
    )
    data = [fuzzer] + ctx.files.corpus + ctx.files.dictionary
    return [DefaultInfo(
        executable = script,
        files = depset([script, fuzzer]),
        runfiles = ctx.runfiles(files = data),
    )]

_fuzz_test = rule(
    implementation = _fuzz_test_impl,
    test = True,
    attrs = {
        "src": attr.label(allow_single_file = [".cc"], mandatory = True),
        "deps": attr.label_list(aspects = [_fuzz_aspect], providers = [CcInfo]),
        "corpus": attr.label_list(allow_files = True),
        "corpus_marker": attr.label(
            allow_single_file = True,
            doc = "One file of the corpus: where the corpus lies.",
        ),
        "dictionary": attr.label(allow_single_file = [".dict"]),
        "seconds": attr.int(mandatory = True),
    },
)

def fuzz_test(name, src, deps, seconds, tags = [], **kwargs):
    """A test that runs a libFuzzer target over its corpus and on for a while.

    Args:
      name: ends in _fuzz_test; what stands before it names the corpus and the dictionary.
      src: the file that defines LLVMFuzzerTestOneInput.
      deps: the C++ libraries that it uses.
      seconds: how long to look for new inputs.
      tags: besides "fuzz".
      **kwargs: as of any test.
    """
    suffix = "_fuzz_test"
    if not name.endswith(suffix):
        fail("the name of a fuzz_test ends in %s: %s" % (suffix, name))
    stem = "testdata/fuzz/" + name[:-len(suffix)]
    corpus = native.glob([stem + "/*"])
    dictionaries = native.glob([stem + ".dict"])
    _fuzz_test(
        name = name,
        src = src,
        deps = deps,
        corpus = corpus,
        corpus_marker = corpus[0] if corpus else None,
        dictionary = dictionaries[0] if dictionaries else None,
        seconds = seconds,
        tags = tags + ["fuzz"],
        **kwargs
    )
