"""`wieldy doctor` tells the truth about machines that lack one thing or another."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wieldy import doctor
from wieldy.report import Report

CHECKOUT = Path(__file__).resolve().parents[1]


def rows(report: Report, title: str) -> dict[str, str]:
    (table,) = (table for table in report.tables if table.title == title)
    return {row[0]: row[1] for row in table.rows}


def test_report_is_plain_json_and_knows_this_machine():
    report = doctor.report()
    details = json.loads(json.dumps(report.details))
    assert details["python"] == sys.version.split()[0]
    assert details["packages"][""]["numpy"]
    assert rows(report, "Installed with wieldy")["(base)"] == "installed"


def test_packages_of_an_extra_are_read_from_the_metadata(monkeypatch):
    lines = [
        "numpy>=2",
        'torch ; extra == "learn"',
        "wieldy[speech] ; extra == 'learn'",
        'absent.one>1; extra=="learn"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "EXTRAS", {"": "base", "learn": "learning"})
    monkeypatch.setattr(doctor, "_version", {"numpy": "2", "torch": "3"}.get)
    report = doctor.report()
    assert report.details["packages"] == {"": {"numpy": "2"}, "learn": {"torch": "3", "absent.one": None}}
    assert rows(report, "Installed with wieldy") == {"(base)": "installed", "learn": "missing: absent.one"}
    assert "for learning: pip install 'wieldy[learn]'" in report.notes


def test_every_extra_and_system_package_is_explained():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].items()
    with_packages_of_their_own = {name for name, asks in extras if not all(one.startswith("wieldy[") for one in asks)}
    assert set(doctor.EXTRAS) == {"", *with_packages_of_their_own}
    assert list(doctor.SYSTEM_PACKAGES) == (CHECKOUT / "system-packages.txt").read_text().split()


def test_missing_system_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setenv("PATH", "")
    report = doctor.report()
    assert rows(report, "System packages")["flite"] == "missing"
    assert any("apt-get install chromium espeak-ng flite" in note for note in report.notes)


def test_models_that_are_not_fetched_are_listed_as_such(empty_cache):
    report = doctor.report()
    assert rows(report, "Models and recordings")["whisper-tiny.en"] == "not fetched"
    assert report.details["models"]["whisper-tiny.en"] is None
    assert report.details["models"]["dvector"], "comes with wieldy itself"
    assert report.details["cache"] == str(empty_cache)


@pytest.mark.parametrize("there", [True, False])
def test_native_extension_there_or_not(there):
    hide = "" if there else "import sys; sys.modules['wieldy._native'] = None; "
    code = f"{hide}from wieldy import doctor; import json; print(json.dumps(doctor.report().to_json()))"
    report = Report.from_json(json.loads(subprocess.check_output([sys.executable, "-c", code])))
    said = rows(report, "This machine")["native extension"]
    noted = [note for note in report.notes if "native extension" in note]
    if there:
        assert said.startswith("there, kernels run at level")
        assert not noted
    else:
        assert said == "not there"
        assert "no C++17 compiler worked" in noted[0]
        assert "read from the operating system" in noted[0]


def test_finding_out_imports_no_heavy_library():
    code = (
        "import sys; from wieldy import doctor; doctor.report()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not loaded & {"torch", "onnxruntime", "transformers", "faster_whisper", "huggingface_hub"}
