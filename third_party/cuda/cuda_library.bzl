"""cuda_library: CUDA C++ compiled by nvcc, for GPUs and for the emulation.

    cuda_library(
        name = "filter_kernels",
        srcs = ["filter_kernels.cu"],
        hdrs = ["filter_kernels.h"],       # compiles without nvcc
        deps = ["//core/matrix:dtype"],    # libraries whose headers they include
    )

makes four targets:

    filter_kernels                machine code for every GPU that the toolkit knows of, and PTX for later ones
    filter_kernels_headers        the headers alone, for host code that does not choose between the others
    filter_kernels_emulated_75    (testonly) the same sources with PTX for //gpu/emulation, as text, of
    filter_kernels_emulated_90    virtual architecture compute_75 or compute_90

Host code depends on the headers; what is linked in the end depends on one of the three besides, and
on @cuda//:cudart or //gpu/emulation. So the host code is compiled once, and the emulation runs it
as it ships. Each source is one action. `--output_groups=resource_usage` gives what ptxas says of
registers, spills and shared memory. Without a toolkit the targets exist and are incompatible.
Under a sanitizer, which sees host code only, there is machine code for one GPU.
"""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@cuda//:toolkit.bzl", "CUDA")

EMULATED_ARCHS = ["75", "90"]

_FLAGS = [
    "-std=c++20",
    "-O3",
    # Exactness: no contraction that the source does not ask for, and IEEE division and square root.
    "-fmad=false",
    "-ftz=false",
    "-prec-div=true",
    "-prec-sqrt=true",
    "-Werror",
    "all-warnings",
    "-Xcompiler=-fPIC,-Wall,-Wextra,-Werror,-ffp-contract=off,-fno-semantic-interposition,-g1",
]

def _device_code_flags(emulated_arch, archs):
    if emulated_arch:
        # With the line table, so that the emulation can name the source's lines.
        return [
            "-no-compress",
            "-lineinfo",
            "-gencode=arch=compute_%s,code=compute_%s" % (emulated_arch, emulated_arch),
        ]
    newest = archs[-1]
    return ["-gencode=arch=compute_%s,code=sm_%s" % (arch, arch) for arch in archs] + [
        "-gencode=arch=compute_%s,code=compute_%s" % (newest, newest),
        "-Xptxas=-v",
    ]

def _include_flags(context):
    # nvcc has no -iquote.
    return (["-I" + path for path in context.quote_includes.to_list()] +
            ["-I" + path for path in context.includes.to_list()] +
            ["-isystem=" + path for path in context.system_includes.to_list()])

def _cuda_objects_impl(ctx):
    cc_toolchain = find_cpp_toolchain(ctx)
    feature_configuration = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = cc_toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    headers = cc_common.merge_cc_infos(cc_infos = [dep[CcInfo] for dep in ctx.attr.deps])
    context = headers.compilation_context
    objects = []
    usages = []
    for source in ctx.files.srcs:
        stem = "_cuda/%s/%s" % (ctx.label.name, source.basename[:-len(".cu")])
        compiled = ctx.actions.declare_file(stem + ".o")
        usage = ctx.actions.declare_file(stem + ".ptxas.txt")
        objects.append(compiled)
        usages.append(usage)
        arguments = ctx.actions.args()
        arguments.add_all(_FLAGS + ctx.attr.copts + _device_code_flags(ctx.attr.emulated_arch, ctx.attr.archs))
        arguments.add_all(["-D" + define for define in context.defines.to_list()])
        arguments.add_all(_include_flags(context))
        arguments.add_all(["-c", source.path, "-o", compiled.path])
        ctx.actions.run_shell(
            # What a compilation that succeeds has to say goes to the file.
            command = 'nvcc=$1 usage=$2; shift 2; "$nvcc" "$@" >"$usage" 2>&1 || { cat "$usage" >&2; exit 1; }',
            arguments = [CUDA.nvcc, usage.path, arguments],
            inputs = depset([source, ctx.file._version], transitive = [context.headers]),
            outputs = [compiled, usage],
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s%s" % (
                source.short_path,
                " for compute_%s, emulated" % ctx.attr.emulated_arch if ctx.attr.emulated_arch else " for GPUs",
            ),
            use_default_shell_env = True,
        )
    linking_context, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        cc_toolchain = cc_toolchain,
        feature_configuration = feature_configuration,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        # The undefined symbols are the runtime's, which the linked program chooses.
        disallow_dynamic_library = True,
        linking_contexts = [dep[CcInfo].linking_context for dep in ctx.attr.deps],
    )
    return [
        DefaultInfo(files = depset(objects)),
        CcInfo(compilation_context = context, linking_context = linking_context),
        OutputGroupInfo(resource_usage = depset(usages)),
    ]

_cuda_objects = rule(
    implementation = _cuda_objects_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "deps": attr.label_list(providers = [CcInfo]),
        "copts": attr.string_list(),
        "archs": attr.string_list(mandatory = True, doc = "of the GPUs that machine code is for, oldest first"),
        "emulated_arch": attr.string(doc = "75: PTX of compute_75; empty: machine code of all GPUs"),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_version": attr.label(default = "@cuda//:version.txt", allow_single_file = True),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, srcs, hdrs = [], deps = [], copts = [], visibility = None, tags = [], testonly = False):
    """See the head of this file.

    Args:
      name: the library's name.
      srcs: .cu files.
      hdrs: headers, .h for those that compile without nvcc, .cuh for the others.
      deps: C++ libraries whose headers srcs and hdrs include; linked, too.
      copts: further flags for nvcc.
      visibility: of all the targets.
      tags: of all the targets.
      testonly: of all the targets; those for the emulation always are.
    """
    incompatible = [] if CUDA.found else ["//third_party/cuda:toolkit_installed"]
    native.cc_library(
        name = name + "_headers",
        testonly = testonly,
        # A .cuh cannot be compiled on its own.
        hdrs = [header for header in hdrs if header.endswith(".h")],
        tags = tags,
        target_compatible_with = incompatible,
        textual_hdrs = [header for header in hdrs if not header.endswith(".h")],
        visibility = visibility,
        deps = deps + ["@cuda//:runtime_headers"],
    )
    for suffix, arch in [("", "")] + [("_emulated_" + arch, arch) for arch in EMULATED_ARCHS]:
        _cuda_objects(
            name = name + suffix,
            testonly = testonly or bool(arch),
            srcs = srcs,
            archs = select({
                "//third_party/cuda:sanitizer": CUDA.archs[:1],
                "//conditions:default": CUDA.archs,
            }),
            copts = copts,
            emulated_arch = arch,
            tags = tags,
            target_compatible_with = incompatible,
            visibility = visibility,
            deps = [":" + name + "_headers"],
        )

def cuda_test(name, srcs, deps, tags = [], **kwargs):
    """A cc_test that needs the toolkit; in a build without, one that is skipped and says why.

    Args:
      name: the test's name.
      srcs: as of a cc_test.
      deps: as of a cc_test.
      tags: as of a cc_test.
      **kwargs: as of a cc_test; left out where there is no toolkit, except for size and timeout.
    """
    if CUDA.found:
        native.cc_test(name = name, srcs = srcs, deps = deps, tags = tags, **kwargs)
        return
    native.cc_test(
        name = name,
        size = kwargs.get("size"),
        timeout = kwargs.get("timeout"),
        srcs = ["//third_party/cuda:no_toolkit_test.cc"],
        local_defines = ["NO_TOOLKIT_REASON=\\\"%s\\\"" % CUDA.reason.replace(" ", "\\ ")],
        tags = tags,
        deps = ["@debian//:gtest_main"],
    )
