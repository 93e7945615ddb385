"""Folders of which more than half is damaged: nothing stops, everything is named."""

import pytest
from folders import judged_folder, trained_folder
from mutants import write_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.mark.parametrize("through", [judged_folder, trained_folder])
def test_a_folder_of_mostly_damaged_files(through, sources, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    found = through(sources, folder, seed=3, count=60)
    assert found["wrong"] == []
