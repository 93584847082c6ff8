import pytest

from tests.tiny_family import write_worlds_family


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of a tiny random family."""
    return write_worlds_family(tmp_path_factory.mktemp("family") / "tiny")
