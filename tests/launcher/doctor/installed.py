"""Folders with installed packages: their metadata, and code where a test needs it."""

from launcher.doctor.packages import Packages


def install(folder, name, version, *lines, code=None):
    """A package in `folder`, with further `lines` of metadata."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}")
    (info / "METADATA").write_text("\n".join((*head, *lines)) + "\n")
    if code is not None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)


def packages(folder, **versions):
    """This program, which requires torch, wandb and pyyaml, and packages in these versions."""
    needs = ("torch>=2.6,<2.14", "wandb>=0.19", "pyyaml>=6.0", 'tomli>=9; python_version < "3"')
    lines = (f"Requires-Dist: {need}" for need in needs)
    install(folder, "gearshift", "0.1.0", "Requires-Python: >=3.10,<3.14", *lines)
    for name, version in versions.items():
        install(folder, name, version)
    return Packages([str(folder)])
