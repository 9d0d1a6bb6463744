"""cuda_toolkit: finds the CUDA toolkit of this machine, or says that there is none.

    cuda_toolkit(name = "cuda")      # in WORKSPACE

The toolkit is $CUDA_HOME where that is set, else /usr/local/cuda. Without one the build is CPU-only,
with no flag to set; CUDA_HOME=/nonexistent (or --repo_env=CUDA_HOME=/nonexistent) makes it so on a
machine that has one. The repository holds

    @cuda//:toolkit.bzl        CUDA, a struct: found, reason (why not, one line), nvcc, version, archs, ...;
                               if_cuda(with_toolkit, without)
    @cuda//:runtime_headers    cuda_runtime_api.h, cublas_v2.h, cuda_fp16.h and what they include
    @cuda//:cudart             libcudart_static, for what is linked in the end

Without a toolkit the two libraries are there and incompatible: `bazel build //...` skips what needs them.
"""

_DEFAULT_HOME = "/usr/local/cuda"

# What a toolkit must have to be used, below its home.
_NEEDED = [
    "bin/nvcc",
    "include/cuda_runtime_api.h",
    "include/cublas_v2.h",
    "lib64/libcudart_static.a",
]

# The GPUs that the kernels are compiled for: Turing to Blackwell. A toolkit that lacks one leaves it out.
_ARCHS = ["75", "80", "86", "89", "90", "100", "120"]

_BUILD_WITH_TOOLKIT = """# Written by //third_party/cuda:toolkit.bzl.
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "runtime_headers",
    hdrs = glob([
        "include/*.h",
        "include/*.hpp",
        "include/crt/*.h",
        "include/crt/*.hpp",
        "include/nv/**",
    ]),
    includes = ["include"],
)

cc_import(
    name = "cudart_static",
    static_library = "lib/libcudart_static.a",
)

cc_library(
    name = "cudart",
    linkopts = [
        "-ldl",
        "-lpthread",
        "-lrt",
    ],
    deps = [
        ":cudart_static",
        ":runtime_headers",
    ],
)

# Changes when another toolkit is installed; an input of what nvcc compiles.
exports_files(["version.txt"])
"""

_BUILD_WITHOUT = """# Written by //third_party/cuda:toolkit.bzl: there is no toolkit.
package(default_visibility = ["//visibility:public"])

[
    cc_library(
        name = name,
        target_compatible_with = ["@tiny_knn//third_party/cuda:toolkit_installed"],
    )
    for name in [
        "cudart",
        "runtime_headers",
    ]
]

exports_files(["version.txt"])
"""

_TOOLKIT_BZL = '''"""Written by //third_party/cuda:toolkit.bzl: the CUDA toolkit of this machine."""

CUDA = struct(
    found = {found},
    reason = {reason},
    home = {home},
    nvcc = {nvcc},
    version = {version},
    archs = {archs},
)

def if_cuda(with_toolkit, without = []):
    """`with_toolkit` where the build has a CUDA toolkit, else `without`."""
    return with_toolkit if CUDA.found else without
'''

def _write(repository_ctx, build, version, **facts):
    repository_ctx.file("BUILD.bazel", build)
    repository_ctx.file("version.txt", version + "\n")
    repository_ctx.file(
        "toolkit.bzl",
        _TOOLKIT_BZL.format(version = repr(version), **{key: repr(value) for key, value in facts.items()}),
    )

def _without(repository_ctx, home, reason):
    _write(
        repository_ctx,
        _BUILD_WITHOUT,
        "none",
        found = False,
        reason = "no CUDA toolkit: %s; set CUDA_HOME to one" % reason,
        home = home,
        nvcc = "",
        archs = [],
    )

def _cuda_toolkit_impl(repository_ctx):
    home = repository_ctx.os.environ.get("CUDA_HOME", "") or _DEFAULT_HOME
    for name in _NEEDED:
        if not repository_ctx.path(home + "/" + name).exists:
            _without(repository_ctx, home, "%s/%s does not exist" % (home, name))
            return
    nvcc = home + "/bin/nvcc"
    version = repository_ctx.execute([nvcc, "--version"])
    listed = repository_ctx.execute([nvcc, "--list-gpu-code"])
    if version.return_code or listed.return_code:
        _without(repository_ctx, home, "%s does not run" % nvcc)
        return
    known = listed.stdout.split("\n")
    archs = [arch for arch in _ARCHS if "sm_" + arch in known]
    if not archs:
        _without(repository_ctx, home, "%s compiles for none of sm_%s" % (nvcc, ", sm_".join(_ARCHS)))
        return
    repository_ctx.symlink(home + "/include", "include")
    repository_ctx.symlink(home + "/lib64/libcudart_static.a", "lib/libcudart_static.a")
    _write(
        repository_ctx,
        _BUILD_WITH_TOOLKIT,
        version.stdout.strip().split("\n")[-1],
        found = True,
        reason = "",
        home = home,
        nvcc = nvcc,
        archs = archs,
    )

cuda_toolkit = repository_rule(
    implementation = _cuda_toolkit_impl,
    # Looks at the machine, so `bazel sync --configure` looks again.
    configure = True,
    local = True,
    environ = ["CUDA_HOME"],
)
