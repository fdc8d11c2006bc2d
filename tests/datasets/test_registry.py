"""Properties of all published data sets that ingest reads."""

import pickle

import pytest

from ray_kplm.cli.main import main
from ray_kplm.datasets.dataset import IngestOptions
from ray_kplm.datasets.ingest_source import Sample
from ray_kplm.datasets.listing import list_source
from ray_kplm.datasets.readers.layout import Distribution, Layout, mirror_pairs
from ray_kplm.datasets.registry import FORMATS, load_reader
from ray_kplm.errors import ConfigError, DataError
from ray_kplm.storage import Folder


@pytest.mark.parametrize("name", FORMATS)
def test_the_error_of_an_empty_folder_has_the_missing_file_its_origin_and_the_terms(source, name):
    with pytest.raises(DataError) as error:
        source.read(load_reader(name))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{source.root} has no ")
    for needed in ("; download ", " from http", "(terms: ", "put it there"):
        assert needed in message


def test_an_unknown_format_is_an_error():
    with pytest.raises(ConfigError, match=r"'cup' must be one of auto, celeba, .*coco"):
        load_reader("cup")


def test_ingest_reads_a_source_by_its_format(source):
    source.picture("a.jpg", (30, 30))
    listing = list_source(source.root, IngestOptions())
    assert [crop.path for entries in listing.splits.values() for crop in entries] == ["a.jpg"]
    with pytest.raises(DataError, match="download CUB-200-2011"):
        list_source(source.root, IngestOptions(format="cub"))
    with pytest.raises(DataError, match="the folder that it was unpacked to"):
        list_source(source.root / "a.jpg", IngestOptions(format="cub"))


def test_the_help_of_the_command_line_lists_the_formats(capsys):
    with pytest.raises(SystemExit):
        main(["ingest", "--help"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    for name, form in FORMATS.items():
        assert lines[name].endswith(form.text)
    with pytest.raises(SystemExit):
        main(["ingest", "a", "b", "--format", "cup"])
    assert "invalid choice: 'cup'" in capsys.readouterr().err


def test_listings_can_be_pickled(source):
    source.picture("a.jpg", (30, 30))
    layout = Layout(Folder.at(source.root), Distribution("Toys", "https://example.org", "none"), IngestOptions())
    layout.files("")
    sample = Sample("a", "a.jpg", (10, 10, 60, 60), annotation={"landmarks": [[30, 30]], "age": 3.0})
    listing = layout.listing({"train": [sample]}, ["dot"], {})
    tables = pickle.loads(pickle.dumps(listing.read_part))(pickle.loads(pickle.dumps(listing.splits["train"])))
    assert tables.images["image_id"].to_pylist() == ["a"]
    assert dict(tables.landmarks["attributes"][0].as_py()) == {"age": 3}


def test_mirror_pairs_follow_from_the_names():
    names = ["left_eye", "nose", "right_eye", "left_brow_left_corner", "right_brow_right_corner", "left_alone"]
    assert mirror_pairs(names) == [[0, 2], [3, 4]]
