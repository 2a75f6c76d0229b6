"""Looks into a wheel and an sdist, and installs each into an empty environment: `make dist`."""

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import importlib, importlib.metadata, pkgutil, sys
import jaxmxopt, jax.numpy as jnp
assert jaxmxopt.__file__.startswith(sys.prefix), jaxmxopt.__file__
assert jaxmxopt.__version__ == importlib.metadata.version("jaxmxopt")
for module in pkgutil.walk_packages(jaxmxopt.__path__, "jaxmxopt."):
    # optax is no part of an empty environment.
    if not module.name.startswith(("jaxmxopt.interop", "jaxmxopt.__main__")):
        importlib.import_module(module.name)
opt, params = jaxmxopt.Adam(), {"w": jnp.ones(3)}
params, state = opt.step(params, params, opt.init(params))
assert int(state.num_update) == 1
print(jaxmxopt.__version__, *sorted(d.name for d in importlib.metadata.distributions()))
"""


def expected() -> set[str]:
    """The files of the package, as in the tree."""
    files = (ROOT / "jaxmxopt").rglob("*")
    kept = (path for path in files if path.suffix in (".py", ".pyi") or path.name == "py.typed")
    return {path.relative_to(ROOT).as_posix() for path in kept}


def check_contents(wheel: pathlib.Path, sdist: pathlib.Path) -> None:
    """Nothing is missing, and the wheel holds the package alone."""
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == expected(), sorted((names - about) ^ expected())
    assert any(name.endswith("/licenses/LICENSE") for name in about), about
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = expected() | {"LICENSE", "README.md", "pyproject.toml"}
    assert wanted <= inside, sorted(wanted - inside)


def check_install(archive: pathlib.Path) -> None:
    """It installs and trains in an empty environment, away from the tree."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = pathlib.Path(folder) / "bin" / "python"
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, archive.resolve()], check=True, cwd=folder)
        for program in (["-c", PROGRAM], ["-m", "jaxmxopt", "--help"]):
            done = subprocess.run(
                [python, "-I", "-W", "error", *program],
                check=True,
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            print(f"{archive.name}: {done.stdout.splitlines()[0]}")


def main() -> None:
    """Checks the one wheel and the one sdist in a folder."""
    folder = pathlib.Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_contents(wheel, sdist)
    for archive in (wheel, sdist):
        check_install(archive)


if __name__ == "__main__":
    main()
