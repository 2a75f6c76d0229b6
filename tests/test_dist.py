"""What a wheel is made from: `make dist` builds one and installs it."""

import fnmatch
import pathlib
import re
import tomllib

import jaxmxopt

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_found():
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for path in (ROOT / "jaxmxopt").rglob("*.py"):
        package = path.parent
        assert (package / "__init__.py").exists(), package
        name = ".".join(package.relative_to(ROOT).parts)
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_types_and_license_go_along():
    assert (ROOT / "jaxmxopt" / "py.typed").exists()
    assert PROJECT["tool"]["setuptools"]["package-data"] == {"jaxmxopt": ["py.typed", "*.pyi"]}
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_version_is_in_one_place():
    """And in the changelog, which says what is in it."""
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert f"## [{jaxmxopt.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxmxopt.__version__)
    written = [
        str(path.relative_to(ROOT / "jaxmxopt"))
        for path in (ROOT / "jaxmxopt").rglob("*.py")
        if re.search(r"__version__\s*=", path.read_text())
    ]
    assert written == ["_core/__init__.py"]


def test_runs_with_jax_and_numpy_alone():
    names = {re.split(r"[^a-z]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert names == {"jax", "jaxlib", "numpy"}
