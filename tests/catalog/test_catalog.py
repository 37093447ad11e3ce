import pkgutil
import subprocess
import sys

import pytest

from wieldy import catalog
from wieldy.catalog import CatalogError
from wieldy.errors import UsageError

COMPLETE = """
slug = "example"
name = "Example"
room = "learn"
kind = "trainer"
method = "example"
summary = "Shows what a file of the catalogue looks like."
entry = "wieldy.learn.example"
status = "planned"

[paper]
title = "An Example"
first_author = "Ada Example"
year = 2020
"""


def read(tmp_path, text, name="example.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return catalog.read([path])[0]


def test_the_catalogue_holds_fifty_systems_and_the_pipeline():
    per_room = {room: len(catalog.in_room(room)) for room in catalog.ROOMS}
    assert per_room == {"speech": 23, "compress": 9, "generate": 7, "learn": 7, "trust": 5}
    assert catalog.systems()[0].slug == "speech-pipeline"


@pytest.mark.parametrize("system", catalog.systems(), ids=lambda system: system.slug)
def test_a_system_is_described_as_the_house_wants(system):
    assert system.summary.endswith(".")
    assert ". " not in system.summary, "one sentence"
    assert system.entry.startswith(f"wieldy.{system.room}.")
    if system.paper is None:
        assert system.slug == "speech-pipeline", "the pipeline is the only system without a paper"
    else:
        assert 2018 <= system.paper.year <= 2026
        assert not system.paper.arxiv or system.paper.arxiv[:2] == str(system.paper.year)[2:]


@pytest.mark.parametrize("system", [s for s in catalog.systems() if s.available], ids=lambda system: system.slug)
def test_an_available_system_can_be_called_and_has_its_claim(system):
    assert callable(pkgutil.resolve_name(system.entry))
    assert pkgutil.resolve_name(system.claim)


def test_find_by_slug_by_method_and_within_a_room():
    assert catalog.find("llm-subnet-search") is catalog.find("subnet") is catalog.find("subnet", "compress")
    with pytest.raises(UsageError, match=r"no system 'subnet' in room 'learn'.*wieldy list --room learn"):
        catalog.find("subnet", "learn")


@pytest.mark.parametrize(
    ("typed", "meant"), [("lazydti", "lazydit"), ("DraftAttention", "draft-attention"), ("sparkl", "sparcl")]
)
def test_an_unknown_name_gets_the_nearest_one(typed, meant):
    with pytest.raises(UsageError, match=rf"no system '{typed}': did you mean {meant}"):
        catalog.find(typed)


def test_a_name_like_no_other_is_sent_to_the_list():
    with pytest.raises(UsageError, match="`wieldy list` shows those there are"):
        catalog.find("qqqqqq")


def test_a_method_word_of_two_rooms_asks_which(tmp_path, monkeypatch):
    for slug, room in (("one", "learn"), ("two", "trust")):
        text = COMPLETE.replace('slug = "example"', f'slug = "{slug}"').replace('"learn"', f'"{room}"')
        (tmp_path / f"{slug}.toml").write_text(text)
    both = catalog.read(sorted(tmp_path.glob("*.toml")))
    monkeypatch.setattr(catalog, "systems", lambda: both)
    with pytest.raises(UsageError, match="'example' is the word of several systems: say one or two"):
        catalog.find("example")
    assert catalog.find("example", "trust").slug == "two"


def test_an_unknown_room_names_the_rooms():
    with pytest.raises(UsageError, match="no room 'kitchen': the rooms are speech, compress, generate, learn, trust"):
        catalog.in_room("kitchen")


def test_a_complete_file_reads(tmp_path):
    system = read(tmp_path, COMPLETE)
    assert system.slug == "example"
    assert str(system.paper) == "An Example. Ada Example et al., 2020"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "example"', 'methd = "example"', "unknown key methd, meant method"),
        ('title = "An Example"', 'titel = "An Example"', r"unknown key paper\.titel, meant title"),
        ('summary = "Shows what a file of the catalogue looks like."', "", "summary is missing"),
        ("year = 2020", "", r"paper\.year is missing"),
        ("year = 2020", 'year = "2020"', r"paper\.year is '2020', expected a int"),
        ('name = "Example"', 'name = ""', "name is ''"),
        ('room = "learn"', 'room = "kitchen"', "room is 'kitchen', expected 'speech' or"),
        ('kind = "trainer"', 'kind = "Trainer"', "kind is 'Trainer', expected 'transform' or"),
        ('status = "planned"', 'status = "soon"', "status is 'soon', expected 'available' or 'planned'"),
        ('status = "planned"', 'status = "available"', "an available system needs a claim and a docs page"),
        ('slug = "example"', 'slug = "other"', "slug is 'other', expected 'example'"),
        ('slug = "example"', "slug = example", "example.toml: Invalid value"),
    ],
)
def test_a_wrong_file_names_its_field(tmp_path, old, new, message):
    assert old in COMPLETE
    with pytest.raises(CatalogError, match=message):
        read(tmp_path, COMPLETE.replace(old, new))


def test_two_systems_of_a_room_cannot_share_a_word(tmp_path):
    (tmp_path / "example.toml").write_text(COMPLETE)
    (tmp_path / "second.toml").write_text(COMPLETE.replace('slug = "example"', 'slug = "second"'))
    with pytest.raises(CatalogError, match=r"second\.toml: 'example' in room 'learn' already names example"):
        catalog.read(sorted(tmp_path.glob("*.toml")))


def test_the_catalogue_brings_in_nothing_heavy():
    script = (
        "import sys; from wieldy import catalog; catalog.systems();"
        "print(*sorted({'numpy', 'rich', 'torch', 'importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
