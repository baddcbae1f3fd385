"""The wheel contains all files of a run; .ci/wheel uses it outside the clone."""

from __future__ import annotations

import zipfile

from scripts.structure import PACKAGES


def test_it_has_every_file_of_the_packages_the_console_script_and_the_licence(wheel, listed):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == listed(PACKAGES)
    assert shipped >= {f"{package}/py.typed" for package in PACKAGES}
    assert any(name.startswith("ds_configs/deepspeed/") for name in shipped)
    (info,) = {name.split("/")[0] for name in names} - {*PACKAGES}
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "gearshift = launcher.__main__:program" in script
    assert f"{info}/licenses/LICENSE" in names
    lines = archive.read(f"{info}/METADATA").decode().splitlines()
    needs = [n.removeprefix("Requires-Dist: ") for n in lines if n.startswith("Requires-Dist: ")]
    assert [n for n in needs if ">=" not in n and "extra ==" not in n] == []
    assert "torch<2.16,>=2.6" in needs
